//! The kernel's shell around the data path: the XDP programs, where a verdict becomes an action and is counted, and the
//! classifier that sends out what leaves by the kernel's stack.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the macro makes an undocumented function around each program")]

mod atomic;
mod frame;
mod maps;
mod show;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action, xdp_md},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::warn;
use lb_common::{
    Be32, Be128, Reason,
    abi::{Onward, exit, purpose},
    event::{NO_REASON, outcome},
    program::Stage,
};
use lb_ebpf::{
    Verdict, World, balance, claim_port, connect, deliver::by_stack, enter, explain::explain,
    fragment::follow as follow_fragment, give_back, hear, icmp::carried, icmp::icmp, icmp::quoted,
    record_flow, refuse, send, tunnel::tunnelled, turn, verdict::Kind,
};

use frame::Packet;
use maps::{Maps, PROGRAMS};
use show::Ending;

/// The program that is attached to an interface.
#[xdp(frags)]
pub fn lb(ctx: XdpContext) -> u32 {
    show::arrival(&ctx);
    let verdict = enter(&mut Packet(ctx.ctx), &Maps);
    act(&ctx, verdict)
}

/// A further program: one stage for one family.
macro_rules! stages {
    ($($name:ident: $stage:ident::<$family:ty>),* $(,)?) => {$(
        #[xdp(frags)]
        pub fn $name(ctx: XdpContext) -> u32 {
            let verdict = $stage::<$family, _, _>(&mut Packet(ctx.ctx), &Maps);
            act(&ctx, verdict)
        }
    )*};
}
stages!(
    lb_ipv6: balance::<Be128>,
    lb_hear: hear::<Be32>,
    lb_hear_ipv6: hear::<Be128>,
    lb_turn: turn::<Be32>,
    lb_turn_ipv6: turn::<Be128>,
    lb_connect: connect::<Be32>,
    lb_connect_ipv6: connect::<Be128>,
    lb_claim: claim_port::<Be32>,
    lb_claim_ipv6: claim_port::<Be128>,
    lb_record: record_flow::<Be32>,
    lb_record_ipv6: record_flow::<Be128>,
    lb_send: send::<Be32>,
    lb_send_ipv6: send::<Be128>,
    lb_return: give_back::<Be32>,
    lb_return_ipv6: give_back::<Be128>,
    lb_refuse: refuse::<Be32>,
    lb_refuse_ipv6: refuse::<Be128>,
    lb_icmp: icmp::<Be32>,
    lb_icmp_ipv6: icmp::<Be128>,
    lb_quote: quoted::<Be32>,
    lb_quote_ipv6: quoted::<Be128>,
    lb_carry: carried::<Be32>,
    lb_carry_ipv6: carried::<Be128>,
    lb_tunnel: tunnelled::<Be32>,
    lb_tunnel_ipv6: tunnelled::<Be128>,
    lb_fragment: follow_fragment::<Be32>,
    lb_fragment_ipv6: follow_fragment::<Be128>,
    lb_explain: explain::<Be32>,
    lb_explain_ipv6: explain::<Be128>,
);

/// Count a verdict and turn it into an action of the driver.
#[inline(always)]
fn act(ctx: &XdpContext, verdict: Verdict) -> u32 {
    let tables = Maps;
    let Verdict { kind, reason, service, backend, interface, bytes, way, stage } = verdict;
    let counted = |outcome| Ending::of(outcome, service, reason as u8);
    match kind {
        Kind::Continue => return proceed(ctx, stage),
        Kind::Pass => show::end(ctx, Ending::of(outcome::PASS, 0, NO_REASON)),
        Kind::Note => show::end(ctx, counted(outcome::PASS)),
        Kind::Drop => show::end(ctx, counted(outcome::DROP)),
        Kind::Answer => {
            show::end(ctx, Ending { leaving: tables.config().interface, ..counted(outcome::ANSWER) });
        }
        Kind::Forward => {
            tables.forwarded(backend, u64::from(bytes), way);
            show::end(
                ctx,
                Ending { backend, leaving: interface, ..Ending::of(outcome::FORWARD, 0, NO_REASON) },
            );
        }
    }
    if matches!(kind, Kind::Note | Kind::Drop | Kind::Answer) {
        tables.count(service, reason);
    }
    match kind {
        Kind::Drop => xdp_action::XDP_DROP,
        Kind::Answer => lb_leave(ctx.ctx, tables.config().interface.into()),
        Kind::Forward => lb_leave(ctx.ctx, interface.into()),
        _ => xdp_action::XDP_PASS,
    }
}

/// Go on in another program. It does not come back, unless the agent has not put it there.
#[inline(always)]
fn proceed(ctx: &XdpContext, stage: Stage) -> u32 {
    // SAFETY: the program array holds XDP programs of this object only; a miss comes back as an error.
    let _ = unsafe { PROGRAMS.tail_call(ctx, stage as u32) };
    warn!(ctx, "the program of stage {} is missing", stage as u32);
    xdp_action::XDP_PASS
}

/// The way out of an interface is a property that the agent found out: XDP_TX loses packets in silence on veth, where
/// `bpf_redirect` does not (drivers/net/veth.c: `veth_xdp_xmit` wants NAPI at the peer). A global function, which the
/// verifier looks at once, and which has a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_leave(ctx: *mut xdp_md, id: u32) -> u32 {
    if Maps.config().purpose == purpose::TRACE {
        return xdp_action::XDP_TX;
    }
    let Some(interface) = Maps.interface(id as u16) else {
        // The rewrite has looked the interface up already, so this is a defect, and worth more than a count.
        warn!(XdpContext::new(ctx), "no interface has the id {}", id);
        Maps.count(0, Reason::NextHopUnresolved);
        return xdp_action::XDP_DROP;
    };
    let config = Maps.config();
    if by_stack(interface.exit, id as u16, &config) {
        if frame::note(ctx, Onward::by(interface.index, config.seed)).is_some() {
            return xdp_action::XDP_PASS;
        }
        // Its driver has no room for a note. A redirect may be lost where the other side does not take frames.
    } else if interface.exit != exit::REDIRECT && id as u16 == config.interface {
        return xdp_action::XDP_TX;
    }
    frame::redirect(interface.index)
}

/// Whether what leaves by an interface does so as an skb, as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_by_stack(id: u32) -> u32 {
    let interface = Maps.interface(id as u16);
    u32::from(interface.is_some_and(|interface| by_stack(interface.exit, id as u16, &Maps.config())))
}

/// Behind the programs, where frames have become skbs: send out what they have rewritten and noted an interface on.
/// Anything else goes on as if this were not here.
#[classifier]
pub fn lb_onward(ctx: TcContext) -> i32 {
    match frame::noted(ctx.skb.skb) {
        Some(onward) if onward == Onward::by(onward.interface, Maps.config().seed) => {
            frame::redirect_skb(onward.interface)
        }
        _ => TC_ACT_UNSPEC,
    }
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
