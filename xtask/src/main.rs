//! Development tasks: `cargo xtask --help`.
//!
//! Each task sets up what it needs by itself, and says what is missing when it cannot.

mod bench;
mod ci;
mod demo;
mod examples;
mod models;
mod modules;
mod process;
mod python;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Development tasks",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the model modules into target/modules.
    Modules(modules::Arguments),
    /// Build everything in release form and run `tidegate demo`.
    Demo(demo::Arguments),
    /// Take real models from the ONNX file to an agent's answer, and compare with ONNX Runtime.
    Models(models::Arguments),
    /// Run all tests, guests' included.
    Test(test::Arguments),
    /// Run every check that a change must pass, tests last.
    Ci(ci::Arguments),
    /// Run all benchmarks.
    Bench(bench::Arguments),
    /// Check the rules that no compiler checks.
    Tidy,
}

fn main() -> ExitCode {
    let result = Workspace::find().and_then(|workspace| match Arguments::parse().task {
        Task::Modules(arguments) => modules::run(&workspace, &arguments),
        Task::Demo(arguments) => demo::run(&workspace, &arguments),
        Task::Models(arguments) => models::run(&workspace, &arguments),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Ci(arguments) => ci::run(&workspace, &arguments),
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
        Task::Tidy => tidy::run(&workspace),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
