//! Simplifies and optimises a graph, for as long as somebody waits for it.
//!
//! The engine changes a graph patch by patch until no pass finds another, which for a large graph takes
//! seconds. The body of a loop is optimised in the middle of a run. So the engine's passes are run here inside ones of ours, which look at the time before each patch.

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::model::TypedModelPatch;
use tract_onnx::tract_core::optim::{Optimizer, OptimizerSession, TypedPass};

use super::scope;

/// The same graph, as the engine runs it best.
pub(crate) fn optimise(mut model: TypedModel) -> TractResult<TypedModel> {
    timed(Optimizer::declutter()).optimize(&mut model)?;
    model.optimize_with_session(&mut timed(Optimizer::codegen()).session())?;
    Ok(model)
}

fn timed(mut optimizer: Optimizer) -> Optimizer {
    let passes = optimizer.passes.into_iter();
    optimizer.passes = passes
        .map(|pass| Box::new(Timed(pass)) as Box<dyn TypedPass>)
        .collect();
    optimizer
}

/// A pass that ends when the time does.
#[derive(Clone)]
struct Timed(Box<dyn TypedPass>);

impl std::fmt::Debug for Timed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl TypedPass for Timed {
    fn reset(&mut self) -> TractResult<()> {
        self.0.reset()
    }

    fn next(
        &mut self,
        session: &mut OptimizerSession<'_>,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        scope::check()?;
        self.0.next(session, model)
    }

    fn run_direct(&mut self, model: &mut TypedModel) -> TractResult<bool> {
        scope::check()?;
        self.0.run_direct(model)
    }
}
