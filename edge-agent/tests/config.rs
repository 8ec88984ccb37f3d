//! What a configuration file may say, and what is said of one that may not.

use std::path::Path;
use std::time::Duration;

use tidegate_control::rollout::RolloutPolicy;
use tidegate_control::{Foresight, Policy, Time};
use tidegate_daemon::LogFormat;
use tidegate_daemon::config::ConfigError;
use tidegate_edge_agent::Config;
use tidegate_edge_agent::config::Module;
use tidegate_registry::trust::TrustPolicy;

const EXAMPLE: &str = include_str!("../agent.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/tidegate/agent.toml"))
}

/// The error that `text` gives mentions all of `expected`, and the file.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let error = parse(text).expect_err(text).to_string();
    for part in expected.iter().chain(&["/etc/tidegate/agent.toml"]) {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn modules_alone_are_enough() {
    let config = parse("modules = ['face.wasm', '/srv/ocr.wasm']").unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let modules = ["/etc/tidegate/face.wasm", "/srv/ocr.wasm"];
    assert_eq!(
        config.modules,
        modules.map(|path| Module::File(path.into()))
    );
    assert_eq!(config.trust, TrustPolicy::default());
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.relays, None);
    assert_eq!(
        config.policy,
        Policy::new(Foresight::Predictive, cores, Duration::from_secs(1))
    );
}

#[test]
fn the_example_says_the_defaults() {
    assert_eq!(
        parse(EXAMPLE).unwrap(),
        parse("modules = ['face.wasm']").unwrap()
    );
}

#[test]
fn the_example_shows_every_key() {
    let key_of = |line: &str| {
        let (key, _) = line.trim_start_matches('#').split_once(" = ")?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        (is_key && !line.starts_with("# ")).then(|| key.to_owned())
    };
    let shown: Vec<_> = EXAMPLE.lines().filter_map(key_of).collect();
    for (table, least) in [
        ("nonsense = 1\n", 10),
        ("[burst]\nnonsense = 1\n", 10),
        ("[rollout]\nnonsense = 1\n", 5),
    ] {
        let error = parse(table).unwrap_err().to_string();
        let expected = error.split("expected one of ").nth(1).unwrap();
        let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(keys.len() >= least, "{error}");
        let is_key = |key: &&str| !["burst", "registry", "rollout", "trust"].contains(key);
        for key in keys.into_iter().filter(is_key) {
            assert!(shown.iter().any(|shown| shown == key), "{key} is not shown");
        }
    }
    assert!(EXAMPLE.contains("\nallow-unsigned = false\n"));
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match key_of(line) {
            Some(key) if key == "arrivals-file" => "\n".to_owned(),
            Some(_) => format!("{}\n", line.trim_start_matches('#')),
            None => format!("{line}\n"),
        })
        .collect();
    let config = parse(&uncommented).unwrap();
    let relays = config.relays.unwrap();
    assert_eq!(relays.file, Some("/etc/tidegate/relays.txt".into()));
    assert_eq!(relays.identity.ca, Path::new("/etc/tidegate/ca.pem"));
    assert_eq!(config.unix_socket, Some("/etc/tidegate/agent.sock".into()));
    assert_eq!(config.policy.slots, 2);
    let registry_ca = Path::new("/etc/tidegate/registry-ca.pem");
    assert_eq!(config.registry_ca.as_deref(), Some(registry_ca));
}

#[test]
fn values_arrive() {
    let config = parse(
        "modules = ['m.wasm']\nlisten = '0.0.0.0:0'\nslots = 3\nqueue-len-max = 5\nslo-ms = 250\n\
         drain-s = 0\nlog = 'warn,hyper=off'\nlog-format = 'json'\nname = 'door'\n\
         [burst]\npolicy = 'reactive'\nrelays = ['relay.example:4433', '[::1]:1']\n\
         certificate = 'a.pem'\nkey = '/k'\nca = '../ca.pem'\nenter = 1\nleave = 0.5\ndwell-s = 3\n",
    )
    .unwrap();
    assert_eq!(config.name, "door");
    assert_eq!((config.policy.slots, config.queue_len_max), (3, 5));
    assert_eq!(config.policy.slo, Duration::from_millis(250));
    assert_eq!(config.policy.service_prior, Duration::from_millis(25));
    assert_eq!(config.policy.foresight, Foresight::Reactive);
    assert_eq!(
        (config.policy.burst_enter, config.policy.burst_leave),
        (1.0, 0.5)
    );
    assert_eq!(config.policy.burst_dwell, Duration::from_secs(3));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.drain, Duration::ZERO);
    let relays = config.relays.unwrap();
    let addresses: Vec<_> = relays.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["relay.example:4433", "[::1]:1"]);
    assert_eq!(relays.identity.key, Path::new("/k"));
    assert_eq!(relays.identity.ca, Path::new("/etc/tidegate/../ca.pem"));
}

#[test]
fn a_reference_is_one_by_its_prefix_and_checked() {
    let text = "oci://localhost:5000/face:1";
    let config = parse(&format!("modules = ['face.wasm', '{text}']")).unwrap();
    assert_eq!(config.modules[1], Module::Registry(text.parse().unwrap()));
    refused(
        "\nmodules = ['a', 'oci://face']\n",
        &["line 2: modules:", "face"],
    );
}

#[test]
fn trust_is_given_by_name() {
    let config = parse("modules = ['m.wasm']\n[trust]\nallow-unsigned = true\n").unwrap();
    assert_eq!(config.trust, TrustPolicy::allow_all());
    let rule = "modules = ['m.wasm']\n[[trust.rules]]\nnames = ['*']\nkeys = ['none.pub']\n";
    let error = parse(rule).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("line 2: trust"), "{error}");
    assert!(cause.contains("/etc/tidegate/none.pub"), "{cause}");
}

#[test]
fn rollouts_are_as_careful_as_they_are_told() {
    let default = parse("modules = ['m.wasm']").unwrap().rollout;
    assert_eq!(default.poll, Duration::from_secs(60));
    assert_eq!(default.policy, RolloutPolicy::default());
    let text = "modules = ['m.wasm']\n[rollout]\npoll-s = 5\ncanary-share = 0.25\n\
                canary-requests-min = 7\ncanary-s-max = 8\nwatch-s = 0\n";
    let rollout = parse(text).unwrap().rollout;
    assert_eq!(rollout.poll, Duration::from_secs(5));
    let policy = RolloutPolicy {
        canary_share: 0.25,
        requests_min: 7,
        canary_max: Duration::from_secs(8),
        watch: Duration::ZERO,
    };
    assert_eq!(rollout.policy, policy);
    for (line, range) in [
        ("poll-s = 0", "1 to 604800"),
        ("canary-share = 0.6", "0.01 to 0.5"),
        ("canary-share = 0", "0.01 to 0.5"),
        ("canary-requests-min = 0", "1 to 1000000"),
        ("canary-s-max = 0", "1 to 604800"),
        ("watch-s = 604801", "0 to 604800"),
    ] {
        let key = line.split(' ').next().unwrap();
        let text = format!("modules = ['m.wasm']\n[rollout]\n{line}\n");
        refused(&text, &[&format!("line 3: rollout.{key}:"), range]);
    }
}

#[test]
fn errors_name_the_key_and_the_line() {
    let top = |line: &str| format!("modules = ['m.wasm']\n\n{line}\n");
    refused(&top("slotz = 1"), &["line 3", "slotz", "slots"]);
    refused(&top("slots = 'two'"), &["line 3", "slots", "two"]);
    refused(&top("slots = 0"), &["line 3: slots:", "1 to 1024"]);
    refused(&top("slots = 100000"), &["line 3: slots:"]);
    refused(&top("slots = -1"), &["line 3", "slots", "-1"]);
    refused(&top("slots = 1.5"), &["line 3", "slots"]);
    refused(&top("queue-len-max = 0"), &["line 3: queue-len-max:"]);
    refused(&top("slo-ms = 0"), &["line 3: slo-ms:"]);
    refused(&top("slo-ms = 99999999999"), &["line 3: slo-ms:"]);
    refused(&top("listen = 'nowhere'"), &["line 3", "listen"]);
    refused(&top("log = 'a=b=c'"), &["line 3: log:"]);
    refused(
        &top("log-format = 'xml'"),
        &["line 3", "log-format", "xml", "json"],
    );
    refused(&top("name = ''"), &["line 3: name:"]);
    refused(&top("name = \"a\\nb\""), &["line 3: name:"]);
    refused(
        &top("held-bytes-max = 1"),
        &["line 3: held-bytes-max:", "67108864"],
    );
    refused(
        &top("request-bytes-max = 0"),
        &["line 3: request-bytes-max:"],
    );
    refused(&top("slots = 1\nslots = 2"), &["line 4", "slots"]);
    refused(&top("slots = "), &["line 3"]);
    refused("slots = 1\n", &["modules is missing"]);
    refused("\nmodules = []\n", &["line 2: modules:"]);
    refused("modules = 'm.wasm'\n", &["line 1", "modules"]);
    refused(
        &format!("modules = [{}]", "'m',".repeat(65)),
        &["line 1: modules:", "65"],
    );
}

#[test]
fn errors_in_the_burst_table_name_the_key_and_the_line() {
    let burst = |line: &str| format!("modules = ['m.wasm']\n[burst]\n{line}\n");
    refused(
        &burst("policy = 'psychic'"),
        &["line 3", "policy", "psychic", "predictive"],
    );
    refused(&burst("polcy = 'off'"), &["line 3", "polcy", "policy"]);
    refused(
        &burst("relays = ['host']"),
        &["line 3: burst.relays:", "host:port"],
    );
    refused(&burst("relays = ['host:0']"), &["line 3: burst.relays:"]);
    refused(&burst("relays = [':1']"), &["line 3: burst.relays:"]);
    refused(
        &burst("relays = [\n'h:1',\n'::1:4433']"),
        &["line 5: burst.relays:", "::1:4433"],
    );
    refused(
        &burst(&format!("relays = [{}]", "'h:1',".repeat(257))),
        &["line 3: burst.relays:", "256"],
    );
    refused(
        &burst("relays = ['h:1']"),
        &["burst.certificate is missing", "TLS"],
    );
    let some = "relays-file = 'r'\ncertificate = 'c'\nkey = 'k'";
    refused(&burst(some), &["burst.ca is missing"]);
    refused(&burst("enter = 1.5"), &["line 3: burst.enter:"]);
    refused(&burst("enter = nan"), &["line 3: burst.enter:"]);
    refused(
        &burst("enter = 0.5\nleave = 0.6"),
        &["line 4: burst.leave:", "0.5"],
    );
    refused(&burst("miss-cost = -1.0"), &["line 3: burst.miss-cost:"]);
    refused(&burst("miss-cost = inf"), &["line 3: burst.miss-cost:"]);
    refused(&burst("lead-ms = 0"), &["line 3: burst.lead-ms:"]);
    refused(
        &burst("policy = 'oracle'"),
        &["burst.arrivals-file is missing"],
    );
    refused(
        &burst("arrivals-file = 'a'"),
        &["line 3: burst.arrivals-file:", "oracle"],
    );
}

#[test]
fn an_oracle_reads_its_arrivals_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let text = "modules = ['m.wasm']\n[burst]\npolicy = 'oracle'\narrivals-file = 'a.txt'\n";
    std::fs::write(&path, text).unwrap();
    let error = Config::load(&path).unwrap_err();
    assert!(matches!(error, ConfigError::File { .. }), "{error}");
    std::fs::write(folder.path().join("a.txt"), "0\n1.5\n").unwrap();
    let arrivals = [0, 1500].map(|ms| Time(Duration::from_millis(ms)));
    assert_eq!(
        Config::load(&path).unwrap().policy.foresight,
        Foresight::Oracle(arrivals.to_vec())
    );
    std::fs::write(folder.path().join("a.txt"), "0\n1.5\n1\n").unwrap();
    let source = std::error::Error::source(&Config::load(&path).unwrap_err())
        .unwrap()
        .to_string();
    assert!(source.contains("line 3"), "{source}");
}

#[test]
fn a_file_that_is_absent_or_endless_is_refused() {
    let error = Config::load(Path::new("/nonexistent/agent.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    let error = Config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}
