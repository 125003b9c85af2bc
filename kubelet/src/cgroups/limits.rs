//! The limits of a group in the units of cgroup v1, and upstream's conversions of CPU
//! (pkg/kubelet/cm/helpers_linux.go).

/// The fewest CPU shares that the kernel takes.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;
/// The period of CPU quotas in microseconds.
pub const QUOTA_PERIOD: i64 = 100_000;
/// The smallest CPU quota in microseconds that the kernel takes.
pub const MIN_QUOTA: i64 = 1000;

/// What a group may use; `None` leaves a limit as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight, 1024 for each CPU.
    pub cpu_shares: Option<u64>,
    /// Microseconds in each period of [`QUOTA_PERIOD`]; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Bytes; -1 is no limit.
    pub memory: Option<i64>,
    /// Processes and threads; -1 is no limit.
    pub pids: Option<i64>,
}

/// CPU shares for a request in thousandths of a CPU.
pub fn milli_cpu_to_shares(milli_cpu: i64) -> u64 {
    let milli_cpu = u64::try_from(milli_cpu).unwrap_or(0);
    (milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The CPU quota in microseconds for a limit in thousandths of a CPU; 0 is no limit.
pub fn milli_cpu_to_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        return 0;
    }
    (milli_cpu.saturating_mul(QUOTA_PERIOD) / 1000).max(MIN_QUOTA)
}

/// The weight of cgroup v2 for shares of v1 (KEP-2254).
pub(super) fn shares_to_weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_match_upstream() {
        let shares = [(0, 2), (1, 2), (2, 2), (4, 4), (100, 102), (1500, 1536)];
        for (milli_cpu, expected) in shares {
            assert_eq!(milli_cpu_to_shares(milli_cpu), expected, "{milli_cpu}m");
        }
        assert_eq!(milli_cpu_to_shares(1_000_000_000), 262_144);
        let quotas = [
            (0, 0),
            (1, 1000),
            (10, 1000),
            (200, 20_000),
            (1500, 150_000),
        ];
        for (milli_cpu, expected) in quotas {
            assert_eq!(milli_cpu_to_quota(milli_cpu), expected, "{milli_cpu}m");
        }
        for (shares, expected) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(shares_to_weight(shares), expected, "{shares} shares");
        }
    }
}
