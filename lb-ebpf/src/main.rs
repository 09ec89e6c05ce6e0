//! The kernel's shell around the data path: the XDP entry, where the verdict becomes an action and is counted.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the macro makes an undocumented function around the program")]

mod frame;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::warn;
use lb_common::{Reason, abi::exit};
use lb_ebpf::{Tables, Verdict, balance};

/// The program of one interface.
#[xdp(frags)]
pub fn lb(ctx: XdpContext) -> u32 {
    let verdict = balance(&mut frame::Packet(ctx.ctx), &maps::Maps);
    act(&ctx, verdict)
}

/// Count a verdict and turn it into an action of the driver.
#[inline(always)]
fn act(ctx: &XdpContext, verdict: Verdict) -> u32 {
    let tables = maps::Maps;
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Note(service, reason) => {
            tables.count(service, reason);
            xdp_action::XDP_PASS
        }
        Verdict::Drop(service, reason) => {
            tables.count(service, reason);
            xdp_action::XDP_DROP
        }
        Verdict::Answer(service, reason) => {
            tables.count(service, reason);
            leave(ctx, tables.config().interface)
        }
        Verdict::Forward { backend, interface, bytes, way } => {
            tables.forwarded(backend, u64::from(bytes), way);
            leave(ctx, interface)
        }
    }
}

/// The way out of an interface is a property that the agent found out: XDP_TX loses packets in silence on veth, where
/// `bpf_redirect` does not (drivers/net/veth.c: `veth_xdp_xmit` wants NAPI at the peer).
#[inline(always)]
fn leave(ctx: &XdpContext, interface: u16) -> u32 {
    let Some(interface) = maps::Maps.interface(interface) else {
        // The rewrite has looked the interface up already, so this is a defect, and worth more than a count.
        warn!(ctx, "no interface has the id {}", interface);
        maps::Maps.count(0, Reason::NextHopUnresolved);
        return xdp_action::XDP_DROP;
    };
    if interface.exit == exit::TX && interface.index as usize == ctx.ingress_ifindex() {
        return xdp_action::XDP_TX;
    }
    frame::redirect(interface.index)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing on the data path panics: the verifier refuses a program from which this could be reached, for it never
    // ends.
    loop {}
}

/// The licence that the kernel reads: helpers that are GPL-only want a compatible one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
