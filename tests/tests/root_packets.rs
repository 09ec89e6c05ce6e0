//! The packet tables in the kernel: the loaded programs over real maps, run by test-run. Nothing is attached.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use lb_common::{Be32, Be128, program::ENTRY};
use lb_tests::{
    lab::skip::{Need, cannot_run},
    packets::{
        Case, Fact, Kernel, Model, Store, World, cases,
        differential::{PACKETS, Round},
        kernel, object, run_all,
        scene::{self, Setting},
        world::{Counters, slots},
    },
};
use lb_userspace::dataplane::OBJECT;

/// Instructions that the verifier may look at for the entry program: a fifth of what the kernel allows.
const MOST_VERIFIED: u32 = 200_000;

/// The same for the stages behind it, half of what the kernel allows: Linux 6.1 looks at some of them four times as often
/// as later ones.
const MOST_VERIFIED_BEHIND: u32 = 500_000;
/// Bytes of stack of the hot path itself; 512 are all that it may use together with what it calls.
const MOST_STACK: u32 = 400;
/// What the kernel gives a chain of calls (include/linux/filter.h, `MAX_BPF_STACK`).
const KERNEL_STACK: u32 = 512;

#[test]
fn every_case_holds_in_the_kernel() {
    if cannot_run("every_case_holds_in_the_kernel", &[Need::Bpf]) {
        return;
    }
    let mut programs = HashMap::new();
    run_all(&cases::all(), |case| {
        // One object serves both families and every mode.
        let config = case.setting.config();
        let program = match programs.entry(format!("{config:?}")) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Kernel::new(config)),
        };
        case.run(program)
    });
}

#[test]
fn kernel_and_library_agree_about_20_000_generated_packets() {
    if !cannot_run("kernel_and_library_agree_about_20_000_generated_packets", &[Need::Bpf]) {
        agree_about(20_000, 0);
    }
}

/// Minutes long, so for itself: `cargo test -p lb-tests --release --test root_packets -- --ignored a_million`.
#[test]
#[ignore = "takes minutes; run by name"]
fn kernel_and_library_agree_about_a_million_generated_packets() {
    if !cannot_run("kernel_and_library_agree_about_a_million_generated_packets", &[Need::Bpf]) {
        agree_about(1_000_000, 1 << 32);
    }
}

/// Run rounds from `seed` on, for each kind of trust; a round that fails is named by its seed, which stays good.
fn agree_about(packets: u64, seed: u64) {
    let rounds = packets.div_ceil(PACKETS * scene::TRUSTS.len() as u64);
    for (name, trust) in scene::TRUSTS {
        let setting = Setting { trust, buckets: 1, ..Setting::DEFAULT }.with_ports(scene::FOUR_PORTS);
        let (mut kernel, mut model) = (Kernel::new(setting.config()), Model::new(setting.config()));
        for seed in seed..seed + rounds {
            let round = Round::new(seed, trust);
            let mut agrees = || match round.setting.version {
                4 => round.agrees::<Be32>(&mut kernel, &mut model),
                _ => round.agrees::<Be128>(&mut kernel, &mut model),
            };
            let begun = Instant::now();
            // The model's clock stands still. Where the kernel's has moved on meanwhile, the round is run again.
            while !agrees().unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}")) {
                assert!(begun.elapsed() < Duration::from_mins(1), "no round of seed {seed} fits into a tick");
            }
        }
    }
}

#[test]
fn a_cleared_world_is_as_good_as_a_new_one() {
    if cannot_run("a_cleared_world_is_as_good_as_a_new_one", &[Need::Bpf]) {
        return;
    }
    let case = Case::new("a handshake twice").handshake().given(Fact::Pass(1));
    let config = case.setting.config();
    let mut kernel = Kernel::new(config);
    for _ in 0..2 {
        case.run(&mut kernel).unwrap();
    }
    kernel.clear();
    assert_eq!(Store::<Be32>::services(&kernel), Vec::new());
    assert_eq!(slots::<Be32>(&kernel).len() + slots::<Be128>(&kernel).len(), 0);
    assert_eq!(Counters::of(&kernel), Counters::of(&Model::new(config)));
}

#[test]
fn each_program_costs_the_verifier_less_than_its_budget() {
    if cannot_run("each_program_costs_the_verifier_less_than_its_budget", &[Need::Bpf]) {
        return;
    }
    for (name, trust) in scene::TRUSTS {
        let ports = lb_common::ports::PortRanges::around(1024, 65535, (32768, 60999));
        let setting = Setting { trust, buckets: 1 << 10, ..Setting::DEFAULT }.with_ports(ports);
        let mut object = kernel::prepared(&setting.config(), aya::VerifierLogLevel::STATS).unwrap();
        for stage in kernel::programs() {
            let program = kernel::program(&mut object, stage);
            program.load().unwrap_or_else(|why| panic!("{stage}, {name}: {why}"));
            let verified = program.info().unwrap().verified_instruction_count().unwrap();
            println!("{name}: {stage}: {verified} instructions verified");
            let most = if stage == lb_common::program::ENTRY { MOST_VERIFIED } else { MOST_VERIFIED_BEHIND };
            assert!(verified <= most, "{name}: {stage}: {verified} instructions verified");
        }
    }
}

#[test]
fn each_program_and_what_it_calls_stay_within_the_stack() {
    let functions = object::functions(OBJECT);
    for stage in kernel::programs() {
        let (own, deepest) = (object::stack(&functions[stage].code), object::deepest(&functions, stage));
        println!("{stage}: {own} bytes of stack, {deepest} with what it calls");
        assert!(own <= MOST_STACK || stage != ENTRY, "{stage}: {own} bytes of stack");
        assert!(deepest <= KERNEL_STACK, "{stage}: {deepest} bytes of stack with what it calls");
    }
    // That calls are followed at all: the hot path looks flows up by a function.
    assert!(!functions[ENTRY].calls.is_empty());
}

#[test]
fn accounts_tickets_and_owners_are_changed_by_atomic_instructions() {
    use object::Atomic::{CompareExchange, FetchAdd};
    let functions = object::functions(OBJECT);
    let count = |name: &str, atomic| {
        let found = object::atomics_below(&functions, name);
        found.into_iter().filter(|one| *one == atomic).count()
    };
    let other = functions.values().flat_map(|function| object::atomics(&function.code));
    assert_eq!(other.filter(|one| !matches!(one, CompareExchange | FetchAdd)).count(), 0);
    for family in ["", "_ipv6"] {
        // Who claims a port, who records a flow, who moves a phase on: each swaps an owner word.
        for stage in ["lb_claim", "lb_record", "lb_hear", "lb_turn", "lb_connect"] {
            let name = format!("{stage}{family}");
            assert!(count(&name, CompareExchange) >= 1, "{name}");
        }
    }
    for name in ["lb_open4", "lb_open6", "lb_close4", "lb_close6"] {
        assert!(count(name, FetchAdd) >= 1, "{name}: {:?}", functions.keys());
    }
    // The ticket of the round robin.
    for name in ["lb_draw4", "lb_draw6"] {
        assert!(count(name, FetchAdd) >= 1, "{name}");
    }
    assert!(count("lb_try_open", CompareExchange) >= 1);
}
