//! What the tables come back to the library for: global functions of numbers, which the verifier looks at once.

use lb_common::{
    Address, Be16, Be32, Be128, Ticks,
    abi::Account,
    cell::{Owner, Rights, Side, Signs},
    flow::FlowKey,
};
use lb_ebpf::{
    World,
    claim::{search, worth},
    flows::{find_slot, room, slot_worth, take_slot},
    seat::{close, open},
    select::draw,
    tables::{Block, NOWHERE, Ring},
};

use super::{ACCOUNTS, Maps, swap};

/// Tries when other CPUs change an account with a limit, which is never passed by: who loses all of them is refused.
const LIMIT_TRIES: u32 = 8;

/// The global functions of one family.
macro_rules! functions {
    (
        $address:ty, $draw:ident, $worth:ident, $search:ident, $find:ident, $slot_worth:ident, $room:ident, $take:ident,
        $open:ident, $close:ident
    ) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $worth(index: u32, now: u32) -> u32 {
            worth::<$address, _>(index, Ticks::from_raw(now), &Maps).raw()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $draw(offset: u32, length: u32, kinds: u32, members: u32, hash: u32) -> u32 {
            let ring = Ring {
                service: (kinds >> 16) as u16,
                algorithm: kinds as u8,
                offset,
                length,
                members: members as u16,
                hash,
            };
            draw::<$address, _>(ring, &Maps).into()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $search(cells: u32, count: u32, start: u32, now: u32) -> u32 {
            search::<$address, _>(Block { cells, count, start }, Ticks::from_raw(now), &Maps)
                .unwrap_or(NOWHERE)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $find(low: u64, high: u64, ports: u64, except: u32) -> u32 {
            find_slot(&key_from::<$address>(low, high, ports), except, &Maps)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $room(bucket: u32, now: u32, by: u32) -> u64 {
            room::<$address, _>(bucket, Ticks::from_raw(now), Rights(by), &Maps)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $take(slot: u32, now: u32, by: u32, tag: u32, port: u32) -> u32 {
            let client = (tag, Be16::from_wire(port as u16));
            take_slot::<$address, _>(slot, Ticks::from_raw(now), Rights(by), client, &Maps) as u32
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(backend: u32) -> u32 {
            open::<$address, _>(backend as u16, &Maps);
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $close(backend: u32) -> u32 {
            close::<$address, _>(backend as u16, &Maps);
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $slot_worth(slot: u32, now: u32, by: u32) -> u32 {
            slot_worth::<$address, _>(slot, Ticks::from_raw(now), Rights(by), &Maps).raw()
        }
    };
}

functions!(
    Be32,
    lb_draw4,
    lb_worth4,
    lb_search4,
    lb_find4,
    lb_slot_worth4,
    lb_room4,
    lb_take4,
    lb_open4,
    lb_close4
);
functions!(
    Be128,
    lb_draw6,
    lb_worth6,
    lb_search6,
    lb_find6,
    lb_slot_worth6,
    lb_room6,
    lb_take6,
    lb_open6,
    lb_close6
);

/// A flow's key from numbers. Where one is of no use, the compiler must not find that out: it
/// would leave the register as it is, and the verifier wants a number in it.
#[inline(always)]
fn key_from<A: Address>(low: u64, high: u64, ports: u64) -> FlowKey<A> {
    FlowKey {
        client: A::from_words((core::hint::black_box(low), core::hint::black_box(high))),
        client_port: Be16::from_wire((ports >> 32) as u16),
        service_port: Be16::from_wire((ports >> 16) as u16),
        service: ports as u16,
    }
}

/// The bit beside those of the signs that says whose they are.
const SERVER: u32 = 1 << 31;

/// A connection's next phase.
#[inline(always)]
pub fn after(owner: Owner, side: Side, signs: Signs) -> Owner {
    Owner(lb_after(owner.0, signs.bits() | if side == Side::Server { SERVER } else { 0 }))
}

/// The same as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_after(owner: u64, signs: u32) -> u64 {
    let side = if signs & SERVER == 0 { Side::Client } else { Side::Server };
    Owner(owner).after(side, Signs::from_bits(signs)).0
}

/// The same number, forgotten by the verifier, which knows nothing of what a global function returns.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_vague(number: u32) -> u32 {
    core::hint::black_box(number)
}

/// Open an account if its limit leaves room, as a global function; 1: done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_try_open(row: u32) -> u32 {
    let Some(account) = ACCOUNTS.get_ptr_mut(row) else { return 0 };
    // SAFETY: the element exists as long as the map; one aligned word.
    if unsafe { core::ptr::read_volatile(&raw const (*account).limit) } == 0 {
        Maps.open_account(row);
        return 1;
    }
    for _ in 0..LIMIT_TRIES {
        // SAFETY: as above. The closed words are read after the opened one, so that a connection that closes meanwhile
        // leaves more room rather than less than there is.
        let (opened, rest) = unsafe {
            let opened = core::ptr::read_volatile(&raw const (*account).opened);
            (opened, core::ptr::read_volatile(account))
        };
        if (Account { opened, ..rest }).is_full() {
            return 0;
        }
        // SAFETY: only the word's address is taken here.
        if swap(unsafe { &raw mut (*account).opened }, opened, opened.wrapping_add(1)) {
            return 1;
        }
    }
    0
}
