//! The packet tables in the kernel: the loaded program over real maps, run by test-run. Nothing is attached.

use std::collections::{HashMap, hash_map::Entry};

use lb_common::{abi::ProgramConfig, ports::PortRanges};
use lb_tests::{
    lab::skip::{Need, cannot_run},
    packets::{
        Case, Fact, Kernel, Model, World, cases,
        check::consistent,
        kernel, object, run_all, scene,
        traffic::{Chance, packet},
        world::Counters,
    },
};
use lb_userspace::dataplane::attach::OBJECT;

/// What the verifier may spend on one program, on any kernel (issue 1); it gives up at a million.
const MOST_VERIFIED: u32 = 200_000;
/// Bytes of stack of the program itself; 512 are all that it may use together with what it calls.
const MOST_STACK: u32 = 400;
/// What the kernel gives a chain of calls (include/linux/filter.h, `MAX_BPF_STACK`).
const KERNEL_STACK: u32 = 512;

#[test]
fn every_case_holds_in_the_kernel() {
    if cannot_run("every_case_holds_in_the_kernel", &[Need::Bpf]) {
        return;
    }
    let mut programs = HashMap::new();
    run_all(&cases::all(), |case, run| {
        let config = scene::config(case.ports, case.trust);
        let key = (config.ports.count(), config.checksums, case.flows);
        let program = match programs.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Kernel::new(config, case.flows)),
        };
        run(program);
    });
}

#[test]
fn kernel_and_library_agree_about_20_000_generated_packets() {
    const ROUNDS: u64 = 168;
    const PACKETS: u64 = 40;
    if cannot_run("kernel_and_library_agree_about_20_000_generated_packets", &[Need::Bpf]) {
        return;
    }
    for (name, trust) in scene::TRUSTS {
        let config = scene::config(scene::FOUR_PORTS, trust);
        let mut kernel = Kernel::new(config, 8);
        let mut model = Model::new(config, 8);
        for round in 0..ROUNDS {
            for world in [&mut kernel as &mut dyn World, &mut model] {
                world.clear();
                scene::set(world, config.ports);
            }
            let mut chance = Chance::new(u64::from(trust) << 32 | round);
            for number in 0..PACKETS {
                let packet = packet(&mut chance);
                let (ours, theirs) = (kernel.run(&packet), model.run(&packet));
                assert_eq!(ours, theirs, "{name}, round {round}, packet {number}: {packet:02x?}");
            }
            assert_eq!(Counters::of(&kernel), Counters::of(&model), "{name}, round {round}");
            for index in 0..model.cell_count() {
                let (ours, theirs) = (kernel.cell_at(index), model.cell_at(index));
                assert_eq!(ours.owner, theirs.owner, "{name}, round {round}, cell {index}");
                assert_eq!(
                    (ours.hop, ours.server_isn),
                    (theirs.hop, theirs.server_isn),
                    "{name}, cell {index}"
                );
            }
            consistent(&kernel).unwrap();
        }
    }
}

#[test]
fn a_cleared_world_is_as_good_as_a_new_one() {
    if cannot_run("a_cleared_world_is_as_good_as_a_new_one", &[Need::Bpf]) {
        return;
    }
    let config = scene::config(scene::ONE_PORT, 0);
    let mut kernel = Kernel::new(config, 4);
    let case = Case::new("a handshake twice").handshake().given(Fact::Pass(1));
    for _ in 0..2 {
        case.run(&mut kernel).unwrap();
    }
    kernel.clear();
    assert_eq!((kernel.flows(), kernel.services()), (Vec::new(), Vec::new()));
    assert_eq!(Counters::of(&kernel), Counters::of(&Model::new(config, 4)));
}

#[test]
fn the_program_costs_the_verifier_less_than_its_budget() {
    if cannot_run("the_program_costs_the_verifier_less_than_its_budget", &[Need::Bpf]) {
        return;
    }
    let ports = PortRanges::around(1024, 65535, (32768, 60999));
    for (name, trust) in scene::TRUSTS {
        let config: ProgramConfig = scene::config(ports, trust);
        let mut object = kernel::prepared(&config, 65_536, aya::VerifierLogLevel::DISABLE).unwrap();
        let program = kernel::program(&mut object);
        program.load().unwrap();
        let verified = program.info().unwrap().verified_instruction_count().unwrap();
        println!("{name}: {verified} instructions verified");
        assert!(verified <= MOST_VERIFIED, "{name}: {verified} instructions verified");
    }
}

#[test]
fn the_program_and_what_it_calls_stay_within_the_stack() {
    let functions = object::functions(OBJECT);
    let stack: HashMap<&str, u32> =
        functions.iter().map(|(name, function)| (name.as_str(), object::stack(function))).collect();
    println!("bytes of stack: {stack:?}");
    let main = stack["lb"];
    assert!(main <= MOST_STACK, "{stack:?}");
    // The kernel rounds each frame up to 32 bytes; of what is called, at most two stand one upon the other
    // (`lb_search` calls `lb_worth`).
    let round = |bytes: u32| bytes.max(1).next_multiple_of(32);
    let mut called: Vec<u32> =
        stack.iter().filter(|(name, _)| **name != "lb").map(|(_, bytes)| round(*bytes)).collect();
    called.sort_unstable();
    let deepest: u32 = called.iter().rev().take(2).sum();
    assert!(round(main) + deepest <= KERNEL_STACK, "{stack:?}");
}

#[test]
fn accounts_tickets_and_cells_are_changed_by_atomic_instructions() {
    use object::Atomic::{CompareExchange, FetchAdd};
    let functions = object::functions(OBJECT);
    let count = |name: &str, atomic| {
        let found = object::atomics(&functions[name]);
        found.into_iter().filter(|one| *one == atomic).count()
    };
    let other = functions.values().flat_map(|function| object::atomics(function));
    assert_eq!(other.filter(|one| !matches!(one, CompareExchange | FetchAdd)).count(), 0);
    // Who sends, who answers, who takes a port, who gives it back: each moves a cell on.
    assert!(count("lb", CompareExchange) >= 5, "{:?}", object::atomics(&functions["lb"]));
    // Each of them opens or closes an account.
    assert!(count("lb", FetchAdd) >= 3, "{:?}", object::atomics(&functions["lb"]));
    // The ticket of the round robin.
    assert!(count("lb_draw", FetchAdd) >= 1, "{:?}", object::atomics(&functions["lb_draw"]));
}
