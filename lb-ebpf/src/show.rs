//! What the program shows of packets: to a capture, each as it came in and as it leaves; to a trace, what became of it.
//!
//! All of it is pruned by the verifier from a program that only serves.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use lb_common::{
    Reason,
    abi::purpose,
    event::{Captured, NO_REASON, SNAP, Traced, outcome, seen},
};
use lb_ebpf::World;

use crate::maps::{CAPTURE, MOMENT, Maps, TRACED};

/// Where `MOMENT` has the time of the packet at hand.
const TIME: u32 = 0;
/// Where `MOMENT` counts the looks that the ring buffer had no room for.
const MISSED: u32 = 1;

/// What became of a packet.
#[derive(Clone, Copy)]
pub struct Ending {
    /// One of `outcome`.
    pub outcome: u8,
    /// The service's id; 0: none, or its backend says it.
    pub service: u16,
    /// The reason's number.
    pub reason: u8,
    /// The (service, backend) pair; 0: none.
    pub backend: u16,
    /// Id of the interface that it leaves by; 0: none.
    pub leaving: u16,
}

impl Ending {
    /// One without a backend, that leaves by no interface.
    #[inline(always)]
    pub const fn of(outcome: u8, service: u16, reason: u8) -> Self {
        Self { outcome, service, reason, backend: 0, leaving: 0 }
    }
}

/// A packet comes in.
#[inline(always)]
pub fn arrival(ctx: &XdpContext) {
    if Maps.config().purpose != purpose::CAPTURE {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(moment) = MOMENT.get_ptr_mut(TIME) {
        // SAFETY: a per-CPU value.
        unsafe { *moment = now };
    }
    capture(ctx, seen::IN, Ending::of(outcome::PASS, 0, NO_REASON), now);
}

/// The program's work on a packet ends.
#[inline(always)]
pub fn end(ctx: &XdpContext, ending: Ending) {
    match Maps.config().purpose {
        purpose::CAPTURE => {
            // SAFETY: a per-CPU value.
            let moment = MOMENT.get_ptr(TIME).map_or(0, |moment| unsafe { *moment });
            capture(ctx, seen::OUT, ending, moment);
        }
        purpose::TRACE => {
            let Ending { outcome, service, reason, backend, leaving } = ending;
            if let Some(traced) = TRACED.get_ptr_mut(0) {
                // SAFETY: the element exists as long as the map; one trace runs at a time.
                unsafe {
                    // What is forwarded may have been counted on the way.
                    let reason = if reason == NO_REASON { (*traced).reason } else { reason };
                    *traced = Traced { backend, service, leaving, outcome, reason };
                }
            }
        }
        _ => {}
    }
}

/// A program that traces would have counted this.
#[inline(always)]
pub fn would_count(reason: Reason) {
    if let Some(traced) = TRACED.get_ptr_mut(0) {
        // SAFETY: as in `end`.
        unsafe { (*traced).reason = reason as u8 };
    }
}

#[inline(always)]
fn capture(ctx: &XdpContext, look: u8, ending: Ending, moment: u64) {
    let Some(mut entry) = CAPTURE.reserve::<Captured>(0) else {
        if let Some(missed) = MOMENT.get_ptr_mut(MISSED) {
            // SAFETY: a per-CPU value.
            unsafe { *missed += 1 };
        }
        return;
    };
    let captured = entry.as_mut_ptr();
    // SAFETY: the entry has room for one `Captured`, which is written whole but for bytes beyond `kept`; the helpers are
    // called on the valid context, with a length that the destination has.
    unsafe {
        let length = bpf_xdp_get_buff_len(ctx.ctx) as u32;
        let kept = if length < SNAP as u32 { length } else { SNAP as u32 };
        (*captured).moment = moment;
        (*captured).length = length;
        (*captured).cpu = bpf_get_smp_processor_id();
        (*captured).backend = ending.backend;
        (*captured).service = ending.service;
        (*captured).interface = Maps.config().interface;
        (*captured).leaving = ending.leaving;
        (*captured).look = look;
        (*captured).outcome = ending.outcome;
        (*captured).reason = ending.reason;
        (*captured).pad = 0;
        (*captured).kept = kept;
        // An Ethernet header is always there. The bounds are those of the whole register, which is what the verifier
        // looks at.
        let length = core::hint::black_box(u64::from(kept));
        if length >= 14 && length <= SNAP as u64 {
            let _ = bpf_xdp_load_bytes(ctx.ctx, 0, (&raw mut (*captured).bytes).cast(), length as u32);
        }
    }
    entry.submit(0);
}
