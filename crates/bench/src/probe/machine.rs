//! The few facts about a machine without which a figure means nothing. No names, no paths.

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub memory_gib: u64,
    /// The kernel's version, without what a distributor or builder added to it.
    pub kernel: String,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_gib(&read("/proc/meminfo")),
            kernel: kernel(&read("/proc/sys/kernel/osrelease")),
        }
    }
}

fn memory_gib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    // Rounded: the kernel keeps a little for itself.
    kib.map_or(0, |kib| (kib + 512 * 1024) / (1024 * 1024))
}

fn kernel(release: &str) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_of_a_kernel_is_told() {
        assert_eq!(kernel("6.1.0-18-cloud-amd64\n"), "6.1.0");
        assert_eq!(kernel("6.12.3\n"), "6.12.3");
        assert_eq!(memory_gib("MemTotal:       24674012 kB\nMemFree: 1 kB"), 24);
    }
}
