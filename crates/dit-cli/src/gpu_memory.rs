//! Free memory of the GPU that libtorch computes on, as the driver's own program tells it.
//!
//! libtorch counts the devices that CUDA shows to this process: those of `CUDA_VISIBLE_DEVICES`, in its order. `nvidia-smi` lists
//! all of the machine's, by their place on the bus.

use std::{env, process::Command};

/// What is asked of each GPU; names last, as they may hold commas.
const QUERY: &str = "--query-gpu=index,uuid,memory.free,mig.mode.current,name";

/// What decides which GPU a number means.
#[derive(Debug)]
struct Environment {
    /// `CUDA_VISIBLE_DEVICES`: places, or (the beginnings of) UUIDs.
    visible: Option<String>,
    /// `CUDA_DEVICE_ORDER`.
    order: Option<String>,
}

/// Bytes that are free on libtorch's device of this number; none where that cannot be told.
pub fn free_bytes(number: usize) -> Option<u64> {
    let output = Command::new("nvidia-smi").args([QUERY, "--format=csv,noheader,nounits"]).output().ok()?;
    let visible = env::var("CUDA_VISIBLE_DEVICES").ok();
    let environment = Environment { visible, order: env::var("CUDA_DEVICE_ORDER").ok() };
    free_of(&String::from_utf8(output.stdout).ok()?, number, &environment)
}

/// A line of the list.
struct Gpu<'a> {
    index: usize,
    uuid: &'a str,
    free_mebibytes: Option<u64>,
    /// Whether it is divided into instances, which are devices of their own.
    divided: bool,
    name: &'a str,
}

impl<'a> Gpu<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(5, ',').map(str::trim);
        let mut field = || fields.next();
        Some(Self {
            index: field()?.parse().ok()?,
            uuid: field()?,
            free_mebibytes: field()?.parse().ok(),
            divided: field()? == "Enabled",
            name: field()?,
        })
    }
}

fn free_of(list: &str, number: usize, environment: &Environment) -> Option<u64> {
    let gpus: Vec<Gpu<'_>> = list.lines().filter_map(Gpu::read).collect();
    // CUDA begins with the fastest unless it is told to go by the bus: among equal ones that is the same.
    let by_bus = environment.order.as_deref() == Some("PCI_BUS_ID") || gpus.iter().all(|gpu| gpu.name == gpus[0].name);
    let at = |index: usize| gpus.iter().find(|gpu| by_bus && gpu.index == index);
    let gpu = match &environment.visible {
        None => at(number),
        Some(visible) => match visible.split(',').nth(number)?.trim() {
            entry if entry.starts_with("GPU-") => {
                let mut named = gpus.iter().filter(|gpu| gpu.uuid.starts_with(entry));
                named.next().filter(|_| named.next().is_none())
            }
            entry => at(entry.parse().ok()?),
        },
    }?;
    // What a division has free, the list does not tell.
    if gpu.divided { None } else { Some(gpu.free_mebibytes? << 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of a kind, and what `nvidia-smi` says of them.
    const ALIKE: &str =
        "0, GPU-0aa1-b, 1000, Disabled, NVIDIA H100 80GB HBM3\n1, GPU-0ab2-c, 2000, [N/A], NVIDIA H100 80GB HBM3\n";
    /// The faster one has the second place on the bus.
    const DIFFERENT: &str = "0, GPU-1, 1000, [N/A], NVIDIA T400\n1, GPU-2, 2000, Disabled, NVIDIA A100-SXM4-40GB\n";
    const DIVIDED: &str = "0, GPU-1, 1000, Enabled, NVIDIA A100\n1, GPU-2, 2000, Disabled, NVIDIA A100\n";

    #[track_caller]
    fn check(list: &str, number: usize, visible: Option<&str>, order: Option<&str>, mebibytes: Option<u64>) {
        let environment = Environment { visible: visible.map(str::to_owned), order: order.map(str::to_owned) };
        let found = free_of(list, number, &environment);
        assert_eq!(found, mebibytes.map(|free| free << 20), "{number} of {environment:?} in\n{list}");
    }

    #[test]
    fn a_number_means_what_cuda_shows_under_it() {
        check(ALIKE, 0, None, None, Some(1000));
        check(ALIKE, 1, None, None, Some(2000));
        check(ALIKE, 2, None, None, None);
        check(ALIKE, 0, Some("1"), None, Some(2000));
        check(ALIKE, 0, Some("1,0"), None, Some(2000));
        check(ALIKE, 1, Some("1, 0"), None, Some(1000));
        check(ALIKE, 1, Some("1"), None, None);
        check(ALIKE, 0, Some(""), None, None);
        check(ALIKE, 0, Some("-1"), None, None);
        check(ALIKE, 0, Some("7"), None, None);
        check("", 0, None, None, None);
        check("No devices were found\n", 0, None, None, None);
    }

    #[test]
    fn uuids_may_be_shortened_while_they_mean_one() {
        check(ALIKE, 0, Some("GPU-0ab2-c"), None, Some(2000));
        check(ALIKE, 1, Some("GPU-0ab,GPU-0aa"), None, Some(1000));
        check(ALIKE, 0, Some("GPU-0a"), None, None);
        check(ALIKE, 0, Some("GPU-ff"), None, None);
        check(DIFFERENT, 0, Some("GPU-2"), None, Some(2000));
    }

    #[test]
    fn places_among_different_gpus_are_told_by_the_bus_alone() {
        check(DIFFERENT, 0, None, None, None);
        check(DIFFERENT, 0, Some("1"), None, None);
        check(DIFFERENT, 0, Some("1"), Some("FASTEST_FIRST"), None);
        check(DIFFERENT, 0, Some("1"), Some("PCI_BUS_ID"), Some(2000));
        check(DIFFERENT, 1, None, Some("PCI_BUS_ID"), Some(2000));
    }

    #[test]
    fn of_a_gpu_in_divisions_nothing_is_told() {
        check(DIVIDED, 0, None, None, None);
        check(DIVIDED, 1, None, None, Some(2000));
        check(DIVIDED, 0, Some("MIG-3f"), None, None);
    }
}
