//! What the kernel says about a process and the machine: CPU time, resident memory, the model of
//! the CPU.

use std::fs;

use anyhow::{Context, bail};

/// Microseconds of a tick of `/proc/PID/stat`; `USER_HZ` is fixed at 100 on Linux. The kernel
/// scales both times to the exact sum, so a window of seconds is exact to this.
const TICK_US: f64 = 10_000.0;

/// User and system time that a process has spent so far, in microseconds, ended threads included.
///
/// # Errors
/// When it is gone.
pub fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"));
    let text = text.with_context(|| format!("process {pid} is gone"))?;
    Ok(times(&text).context("/proc/PID/stat")?.own)
}

/// User and system time of the children that this process has waited for, in microseconds.
///
/// # Errors
/// When `/proc` is not there.
pub fn children_cpu_us() -> anyhow::Result<f64> {
    Ok(times(&fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat")?.children)
}

/// Resident memory in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"));
    resident(&text.with_context(|| format!("process {pid} is gone"))?).context("/proc/PID/status")
}

/// The CPU's model name and how many cores are online.
#[must_use]
pub fn cpu_model() -> (String, usize) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| "unknown".to_owned());
    // Virtual machines hide the model; family and number tell generations apart.
    let model = match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    };
    (model, text.lines().filter(|line| line.starts_with("processor")).count())
}

/// The kernel's release without what a builder appended to it.
#[must_use]
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let number = release.trim().split('-').next().unwrap_or_default();
    format!("Linux {number}")
}

#[derive(Debug, PartialEq)]
struct Times {
    own: f64,
    children: f64,
}

fn times(stat: &str) -> anyhow::Result<Times> {
    // The second field is the command in brackets and may hold spaces and brackets.
    let Some((_, rest)) = stat.rsplit_once(')') else { bail!("there is no command") };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |index: usize| -> anyhow::Result<f64> {
        let field = fields.get(index).with_context(|| format!("there is no field {index}"))?;
        Ok(field.parse::<f64>()? * TICK_US)
    };
    Ok(Times { own: ticks(11)? + ticks(12)?, children: ticks(13)? + ticks(14)? })
}

fn resident(status: &str) -> anyhow::Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("there is no VmRSS")?.parse::<f64>()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (io) 1) x) S 1 4242 4242 0 -1 4194304 900 0 0 0 250 125 7 3 20 0 \
        9 0 100 200 300";

    #[test]
    fn times_are_found_behind_a_command_with_spaces_and_brackets() {
        let found = times(STAT).unwrap();
        assert_eq!(found, Times { own: 3_750_000.0, children: 100_000.0 });
    }

    #[test]
    fn a_short_line_is_an_error_not_zero() {
        assert!(times("4242 (penstock) S 1 2 3").is_err());
        assert!(times("").is_err());
        assert!(resident("VmSize: 10 kB\n").is_err());
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let found = resident("Name:\tx\nVmRSS:\t    2048 kB\n").unwrap();
        assert!((found - 2_097_152.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_memory_and_a_machine() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1e5);
        assert!(cpu_us(std::process::id()).is_ok() && children_cpu_us().is_ok());
        assert!(cpu_model().1 >= 1);
        assert!(kernel().starts_with("Linux ") && !kernel().contains('-'));
    }
}
