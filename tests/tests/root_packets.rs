//! The packet tables in the kernel: the loaded programs over real maps, run by test-run. Nothing is attached.

use std::collections::{HashMap, hash_map::Entry};

use lb_tests::{
    lab::skip::{Need, cannot_run},
    packets::{Kernel, cases, run_all},
};

#[test]
fn every_case_holds_in_the_kernel() {
    if cannot_run("every_case_holds_in_the_kernel", &[Need::Bpf]) {
        return;
    }
    let mut programs = HashMap::new();
    run_all(&cases::all(), |case| {
        // One program serves both families and every mode.
        let config = case.setting.config();
        let key = format!("{config:?}");
        let program = match programs.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Kernel::new(config)),
        };
        case.run(program)
    });
}
