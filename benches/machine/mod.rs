//! What the figures were taken on.

use std::process::Command;

/// What it runs on, in one line.
pub fn machine() -> String {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.to_owned())
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = file("/proc/sys/kernel/osrelease");
    let ovs = Command::new("ovs-vsctl").arg("--version").output();
    let ovs = ovs.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let ovs = ovs.unwrap_or_default();
    let ovs = ovs
        .lines()
        .next()
        .and_then(|line| line.split(' ').next_back())
        .unwrap_or_default();
    format!(
        "{cpu}, {cores} cores, Linux {}, Open vSwitch {ovs}",
        kernel.trim()
    )
}
