//! The classifier behind the programs, which sends out what they have rewritten and left to the kernel's stack.
//!
//! A redirected frame is lost on the way into a veth whose peer has no NAPI, as an untouched container's has none, and
//! no bridge takes frames (drivers/net/veth.c, `veth_xdp_xmit`; net/bridge has no `ndo_xdp_xmit`). As an skb a packet is
//! taken by everybody, however long GRO has made it. The program leaves a note of the interface before such a packet
//! (`lb_common::abi::Onward`), and this classifier, on the ingress of the same interface, follows it.
//!
//! It is a filter of `clsact`, which stays when the agent goes and is replaced in place by the next one; links that can
//! be pinned (tcx) came with Linux 6.6 only.

use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use lb_common::abi::{Layout, ProgramConfig, Stations};

use super::{DataplaneError, Pins, load::over_maps};

/// Its name in the object, and in `tc filter show`.
const PROGRAM: &str = "lb_onward";

/// Before other filters: what it takes is rewritten already, and what it does not take goes on to them.
const PRIORITY: u16 = 1;

/// By which a later agent finds it.
const HANDLE: TcHandle = TcHandle::new(0, 0x6c62);

/// The loaded classifier.
pub(super) struct Onward(Ebpf);

impl Onward {
    /// Load it; the maps must be there.
    pub(super) fn load(pins: &Pins, layout: &Layout) -> Result<Self, DataplaneError> {
        let config = ProgramConfig { seed: layout.seed, ..ProgramConfig::default() };
        let mut onward = Self(over_maps(pins, layout, &config, &Stations::ANY)?);
        onward.program()?.load().map_err(DataplaneError::from_program)?;
        Ok(onward)
    }

    fn program(&mut self) -> Result<&mut SchedClassifier, DataplaneError> {
        let program = self.0.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
        program.ok_or(DataplaneError::Object { name: PROGRAM })
    }

    /// Put it behind the program of an interface, in place of the one that is there.
    pub(super) fn attach(&mut self, interface: &str) -> Result<(), DataplaneError> {
        // It may be there already; if it cannot be, the filter's refusal says why.
        let _ = qdisc_add_clsact(interface);
        let failed =
            |source| DataplaneError::Classifier { interface: interface.to_owned(), source: Box::new(source) };
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        let program = self.program()?;
        let options = TcAttachOptions::Netlink(options);
        let link =
            program.attach_with_options(interface, TcAttachType::Ingress, options).or_else(|refused| {
                // What an earlier agent left there.
                filter(interface).map_or(Err(refused), |there| program.attach_to_link(there))
            });
        let link = link.and_then(|link| program.take_link(link)).map_err(failed)?;
        // A link that is dropped is detached, and this one shall outlive the agent. It holds no descriptor.
        std::mem::forget(link);
        Ok(())
    }
}

/// The filter that is, or may be, on an interface.
fn filter(interface: &str) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Take it off an interface, if it is there. The `clsact` stays: somebody else may have come to use it.
pub(super) fn detach(interface: &str) {
    drop(filter(interface));
}
