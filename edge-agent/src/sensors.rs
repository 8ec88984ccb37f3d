//! What the device says of itself: CPU that it may use, and CPU that is in use.
//!
//! The quota is the least of the cgroup limits (v2 `cpu.max`, v1 `cpu.cfs_quota_us`) from this
//! process's group up to the root, and of the cores that it may run on. Utilisation is that of the
//! whole host, from the first line of `/proc/stat`, so it also shows the load of others. A sensor that
//! a machine does not have reads as unknown; none is required. Kernel interfaces:
//! `Documentation/admin-guide/cgroup-v2.rst`, `Documentation/scheduler/sched-bwc.rst`, `proc_stat(5)`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// Most levels of nested cgroups that are looked at: far deeper than any manager nests them.
const CGROUP_DEPTH_MAX: usize = 32;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// Cores' worth of CPU time that this process may use.
    pub(crate) cpu_quota: Option<f64>,
    /// Part of the host's CPU time in use since the reading before, 0 to 1.
    pub(crate) cpu_utilisation: Option<f64>,
}

/// The sensors that this machine has.
#[derive(Debug)]
pub(crate) struct Sensors {
    limits: Vec<Limit>,
    cores: Option<f64>,
    stat: PathBuf,
    before: Option<CpuTime>,
}

/// A group's CPU limit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Limit {
    /// `cpu.max`: quota and period in one file.
    V2(PathBuf),
    /// `cpu.cfs_quota_us`, `cpu.cfs_period_us`.
    V1 { quota: PathBuf, period: PathBuf },
}

/// Clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

impl Sensors {
    /// Finds the sensors under `root`, which is `/` outside tests.
    pub(crate) fn find(root: &Path) -> Self {
        let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = candidates(&root.join("sys/fs/cgroup"), &cgroups);
        Self {
            limits: limits.into_iter().filter(Limit::is_there).collect(),
            cores: available_parallelism().ok().map(|cores| real(cores.get())),
            stat: root.join("proc/stat"),
            before: None,
        }
    }

    /// Reads them all: a few small files that the kernel makes up, so it never waits for a disk.
    pub(crate) fn read(&mut self) -> Reading {
        let quotas = self.limits.iter().filter_map(Limit::read);
        let now = fs::read_to_string(&self.stat)
            .ok()
            .and_then(|text| cpu_time(&text));
        let utilisation = self
            .before
            .zip(now)
            .and_then(|(before, now)| now.since(before));
        self.before = now;
        Reading {
            cpu_quota: quotas.chain(self.cores).reduce(f64::min),
            cpu_utilisation: utilisation,
        }
    }
}

impl Limit {
    fn is_there(&self) -> bool {
        match self {
            Self::V2(file) => file.is_file(),
            Self::V1 { quota, period } => quota.is_file() && period.is_file(),
        }
    }

    fn read(&self) -> Option<f64> {
        match self {
            Self::V2(file) => {
                let text = fs::read_to_string(file).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                cores(quota, period)
            }
            Self::V1 { quota, period } => {
                let quota = fs::read_to_string(quota).ok()?;
                cores(quota.trim(), fs::read_to_string(period).ok()?.trim())
            }
        }
    }
}

impl CpuTime {
    fn since(self, before: Self) -> Option<f64> {
        let busy = self.busy.checked_sub(before.busy)?;
        let total = self.total.checked_sub(before.total)?;
        (total > 0).then(|| (ticks(busy) / ticks(total)).min(1.0))
    }
}

/// Microseconds over microseconds; `max` and `-1` mean no limit.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u32, u32) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

/// Where the limits of the groups in `/proc/self/cgroup` may be: each group and those above it.
/// A container sees its own group as the root of the mount, which the walk upwards ends in.
fn candidates(mount: &Path, cgroups: &str) -> Vec<Limit> {
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let v1 = controllers.split(',').any(|controller| controller == "cpu");
        if !v1 && !controllers.is_empty() {
            continue;
        }
        let base = if v1 {
            mount.join(controllers)
        } else {
            mount.to_owned()
        };
        let group = Path::new(group.trim_start_matches('/'));
        for level in group.ancestors().take(CGROUP_DEPTH_MAX) {
            let folder = base.join(level);
            found.push(if v1 {
                Limit::V1 {
                    quota: folder.join("cpu.cfs_quota_us"),
                    period: folder.join("cpu.cfs_period_us"),
                }
            } else {
                Limit::V2(folder.join("cpu.max"))
            });
        }
    }
    found
}

/// The first line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal ...`. Guest
/// time is already in `user`, so what follows `steal` is left out.
fn cpu_time(stat: &str) -> Option<CpuTime> {
    const IDLE: [usize; 2] = [3, 4];
    let mut words = stat.lines().next()?.split_ascii_whitespace();
    if words.next() != Some("cpu") {
        return None;
    }
    let mut time = CpuTime { busy: 0, total: 0 };
    let mut fields = 0;
    for (index, word) in words.take(8).enumerate() {
        let ticks: u64 = word.parse().ok()?;
        time.total = time.total.checked_add(ticks)?;
        if !IDLE.contains(&index) {
            time.busy = time.busy.checked_add(ticks)?;
        }
        fields = index + 1;
    }
    (fields >= 4).then_some(time)
}

fn ticks(count: u64) -> f64 {
    // Exact up to 2^53 ticks, which is three million years of one core.
    count as f64
}

fn real(count: usize) -> f64 {
    ticks(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files, and what its sensors read.
    fn check(files: &[(&str, &str)], quota: Option<f64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut sensors = Sensors::find(root.path());
        sensors.cores = None;
        assert_eq!(sensors.read().cpu_quota, quota, "{files:?}");
    }

    #[test]
    fn the_quota_is_the_least_on_the_way_to_the_root() {
        check(&[], None);
        check(
            &[
                ("proc/self/cgroup", "0::/edge/agent\n"),
                ("sys/fs/cgroup/edge/agent/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/edge/cpu.max", "150000 100000\n"),
            ],
            Some(1.5),
        );
        check(
            &[
                (
                    "proc/self/cgroup",
                    "4:memory:/m\n3:cpu,cpuacct:/box\n0::/\n",
                ),
                ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n"),
                (
                    "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us",
                    "100000\n",
                ),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
            Some(0.5),
        );
        check(
            &[
                ("proc/self/cgroup", "0::/not/visible/in/this/container\n"),
                ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
            ],
            Some(2.0),
        );
        check(
            &[
                ("proc/self/cgroup", "garbage\n0::/\n"),
                ("sys/fs/cgroup/cpu.max", "1 0\n"),
            ],
            None,
        );
    }

    #[test]
    fn utilisation_is_busy_over_total_between_readings() {
        let root = tempfile::tempdir().unwrap();
        let stat = root.path().join("proc/stat");
        fs::create_dir_all(stat.parent().unwrap()).unwrap();
        let mut sensors = Sensors::find(root.path());
        let mut check = |line: &str, expected: Option<f64>| {
            fs::write(&stat, line).unwrap();
            assert_eq!(sensors.read().cpu_utilisation, expected, "{line}");
        };
        check("cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 ...", None);
        check("cpu  40 0 10 120 20 0 0 10 9 9\n", Some(0.4));
        check("cpu  40 0 10 120 20 0 0 10 9 9\n", None);
        check("cpu  1 0 0 1 0 0 0 0\n", None);
        check("cpu  1 x\n", None);
        check("", None);
    }

    #[test]
    fn this_machine_reads() {
        let reading = Sensors::find(Path::new("/")).read();
        assert!(
            reading.cpu_quota.is_none_or(|cores| cores > 0.0),
            "{reading:?}"
        );
    }
}
