//! scratch
use lb_userspace::dataplane::{*, attach};
use lb_common::{abi::Layout, ports::PortRanges};
fn main() {
    let pins = Pins::new("/sys/fs/bpf/scratch");
    pins.prepare().unwrap();
    let layout = Layout { seed: 1, ports: PortRanges::around(1024, 65535, (32768, 60999)), flows: 65536, blocks: 4 };
    for kind in [Kind::Veth, Kind::Physical] { for mode in [Mode::Native, Mode::Generic] {
    let port = Port { name: "x".into(), index: 1, id: 1, kind, mode: None, running: None };
    match attach::load(&pins, &layout, &port, mode) {
        Ok(mut o) => { let p: &mut aya::programs::Xdp = o.program_mut("lb").unwrap().try_into().unwrap(); let i = p.info().unwrap(); println!("{kind:?} {mode:?} ok: verified {:?} translated {:?}", i.verified_instruction_count(), i.size_translated()); }
        Err(e) => { println!("{e}"); let mut s: Option<&dyn std::error::Error> = std::error::Error::source(&e); while let Some(x) = s { let t = x.to_string(); println!("  {}", &t[t.len().saturating_sub(3000)..]); s = x.source(); } }
    } } }
    pins.remove().unwrap();
}
