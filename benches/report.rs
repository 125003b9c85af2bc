//! How figures are printed.

use std::time::{Duration, Instant};

/// A line of the report.
pub fn line(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<58} {figure}");
}

/// The machine's own figures, to judge the others by.
pub fn machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    line("machine: cores", cores);
    let begun = Instant::now();
    let mut sum = 0_u64;
    for number in 0..200_000_000_u64 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
    }
    line(
        "machine: 200 million multiplications",
        seconds(begun.elapsed()),
    );
    line("machine: fsync of 4 KiB, median", seconds(fsync()));
}

fn fsync() -> Duration {
    use std::io::Write as _;
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut file = std::fs::File::create(dir.path().join("file")).expect("a file can be made");
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[7; 4096]).expect("the file can be written");
            file.sync_all().expect("the file can be synced");
            begun.elapsed()
        })
        .collect();
    percentile(&mut times, 50)
}

pub fn binary_size() {
    let size = std::fs::metadata(crate::cluster::binary())
        .expect("there is a binary")
        .len();
    line("static binary, stripped", bytes(size));
}

pub fn seconds(duration: Duration) -> String {
    if duration < Duration::from_millis(1) {
        format!("{:.1} µs", duration.as_secs_f64() * 1e6)
    } else if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

pub fn bytes(size: u64) -> String {
    match size {
        0..10_000 => format!("{size} B"),
        10_000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

/// The nearest-rank percentile.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}
