//! The figures of the process itself.

use super::{gpu, metrics};

/// Refreshes the figures of the process itself and of the machine's GPUs; called before
/// rendering.
pub fn refresh() {
    gpu::refresh();
    if let Some(bytes) = resident_bytes() {
        metrics::RESIDENT.gauge(&[]).set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        metrics::CPU_SECONDS.gauge(&[]).set(seconds);
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    /// `USER_HZ`, fixed at 100 on Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in brackets and may hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_own_size() {
        assert!(resident_bytes().unwrap() > 1e5);
        assert!(cpu_seconds().is_some());
    }
}
