//! What stands in the kernel object: instructions found by reading its ELF sections, for a machine need not have a
//! disassembler (Documentation/bpf/standardization/instruction-set.rst).

use std::collections::BTreeMap;

/// One instruction of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation and class.
    pub code: u8,
    /// Destination register.
    pub destination: u8,
    /// Source register.
    pub source: u8,
    /// Offset.
    pub offset: i16,
    /// Immediate.
    pub immediate: i32,
}

/// The operation of an atomic instruction, by the kernel's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atomic {
    /// Add, and return what was there.
    FetchAdd,
    /// Compare and exchange.
    CompareExchange,
    /// Another one, by its immediate.
    Other(i32),
}

/// `BPF_STX | BPF_ATOMIC | BPF_DW`.
const ATOMIC_64: u8 = 0xdb;
/// `BPF_STX | BPF_ATOMIC | BPF_W`.
const ATOMIC_32: u8 = 0xc3;
/// `BPF_LD | BPF_IMM | BPF_DW`, the only one of sixteen bytes.
const LOAD_64: u8 = 0x18;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// The source register of a call within the object.
const PSEUDO_CALL: u8 = 1;
/// The frame pointer.
const FRAME: u8 = 10;
/// Section type of executable code: `SHT_PROGBITS` with the flag `SHF_EXECINSTR`.
const EXECUTABLE: u64 = 4;

/// A function of an object.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its instructions.
    pub code: Vec<Instruction>,
    /// The functions that it calls, by name, in any order.
    pub calls: Vec<String>,
}

/// The functions of an object, by name.
pub fn functions(elf: &[u8]) -> BTreeMap<String, Function> {
    let sections = sections(elf);
    let mut places = BTreeMap::new();
    // A symbol table of type `SHT_SYMTAB`; its entries have 24 bytes.
    for table in sections.iter().filter(|section| section.kind == 2) {
        let names = &sections[table.link as usize];
        for symbol in elf[table.start..table.start + table.size].chunks_exact(24) {
            let (kind, section) = (symbol[4] & 0x0f, usize::from(half(symbol, 6)));
            if kind == 2 && sections.get(section).is_some_and(|code| code.flags & EXECUTABLE != 0) {
                let name = text(elf, names.start + word(symbol, 0) as usize);
                places.insert((section, wide(symbol, 8) as usize), (name, wide(symbol, 16) as usize));
            }
        }
    }
    let code_of = |section: usize, start: usize, size: usize| {
        let from = sections[section].start + start;
        decode(&elf[from..from + size])
    };
    let moved = relocations(elf, &sections);
    let mut functions = BTreeMap::new();
    for ((section, start), (name, size)) in &places {
        let code = code_of(*section, *start, *size);
        let calls = calls(&code, *section, *start, &moved);
        let calls = calls.into_iter().filter_map(|place| Some(places.get(&place)?.0.clone())).collect();
        functions.insert(name.clone(), Function { code, calls });
    }
    functions
}

/// Where calls lead to whose target another section holds: (section, offset of the instruction) to (section, offset).
type Moved = BTreeMap<(usize, usize), (usize, usize)>;

/// Entries of 16 bytes in sections of type `SHT_REL`: the target is a symbol, by which the immediate counts.
fn relocations(elf: &[u8], sections: &[Section]) -> Moved {
    let mut moved = Moved::new();
    for table in sections.iter().filter(|section| section.kind == 9) {
        let symbols = &sections[table.link as usize];
        for entry in elf[table.start..table.start + table.size].chunks_exact(16) {
            let symbol = symbols.start + 24 * word(entry, 12) as usize;
            let target = (usize::from(half(elf, symbol + 6)), wide(elf, symbol + 8) as usize);
            moved.insert((table.info as usize, wide(entry, 0) as usize), target);
        }
    }
    moved
}

/// Places that a function calls.
fn calls(code: &[Instruction], section: usize, start: usize, moved: &Moved) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut at = start;
    for instruction in code {
        if instruction.code == CALL && instruction.source == PSEUDO_CALL {
            let beyond = |from: usize| from.wrapping_add_signed((instruction.immediate as isize + 1) * 8);
            places.push(match moved.get(&(section, at)) {
                Some((other, from)) => (*other, beyond(*from)),
                None => (section, beyond(at)),
            });
        }
        at += if instruction.code == LOAD_64 { 16 } else { 8 };
    }
    places
}

/// The atomic instructions of a function and of all that it calls.
pub fn atomics_below(functions: &BTreeMap<String, Function>, name: &str) -> Vec<Atomic> {
    let function = &functions[name];
    let below = function.calls.iter().flat_map(|called| atomics_below(functions, called));
    atomics(&function.code).into_iter().chain(below).collect()
}

/// Bytes of stack of the deepest chain of calls from a function, each frame rounded up to 32 bytes as the kernel does
/// where it must (kernel/bpf/verifier.c, `round_up_stack_depth`).
pub fn deepest(functions: &BTreeMap<String, Function>, name: &str) -> u32 {
    let function = &functions[name];
    let below = function.calls.iter().map(|called| deepest(functions, called)).max();
    stack(&function.code).max(1).next_multiple_of(32) + below.unwrap_or(0)
}

/// The atomic instructions of a function, in order.
pub fn atomics(function: &[Instruction]) -> Vec<Atomic> {
    let atomic = function.iter().filter(|instruction| matches!(instruction.code, ATOMIC_64 | ATOMIC_32));
    atomic
        .map(|instruction| match instruction.immediate {
            0x01 => Atomic::FetchAdd,
            0xf1 => Atomic::CompareExchange,
            other => Atomic::Other(other),
        })
        .collect()
}

/// Bytes of stack that a function uses: the lowest place below the frame pointer that it stores to, loads from or
/// takes the address of.
pub fn stack(function: &[Instruction]) -> u32 {
    let mut lowest = 0;
    for (index, instruction) in function.iter().enumerate() {
        let (class, memory) = (instruction.code & 0x07, instruction.code & 0xe0 != 0x00);
        let place = match class {
            // BPF_LDX reads by its source, BPF_ST and BPF_STX write by their destination.
            1 if instruction.source == FRAME => i32::from(instruction.offset),
            2 | 3 if instruction.destination == FRAME && memory => i32::from(instruction.offset),
            7 if instruction.code == MOVE && instruction.source == FRAME => {
                // Others may stand between the two, but none that gives the register another meaning.
                let mut rest =
                    function[index + 1..].iter().filter(|next| next.destination == instruction.destination);
                rest.next().filter(|next| next.code == ADD).map_or(0, |next| next.immediate)
            }
            _ => 0,
        };
        lowest = lowest.min(place);
    }
    lowest.unsigned_abs()
}

struct Section {
    kind: u32,
    flags: u64,
    start: usize,
    size: usize,
    link: u32,
    info: u32,
}

/// The section headers of an ELF file of 64 bits, little endian.
fn sections(elf: &[u8]) -> Vec<Section> {
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01", "not an ELF file of 64 bits, little endian");
    let (table, size, count) =
        (wide(elf, 0x28) as usize, usize::from(half(elf, 0x3a)), usize::from(half(elf, 0x3c)));
    let headers = elf[table..table + size * count].chunks_exact(size);
    headers
        .map(|header| Section {
            kind: word(header, 4),
            flags: wide(header, 8),
            start: wide(header, 24) as usize,
            size: wide(header, 32) as usize,
            link: word(header, 40),
            info: word(header, 44),
        })
        .collect()
}

fn decode(bytes: &[u8]) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    let mut words = bytes.chunks_exact(8);
    while let Some(bytes) = words.next() {
        instructions.push(Instruction {
            code: bytes[0],
            destination: bytes[1] & 0x0f,
            source: bytes[1] >> 4,
            offset: half(bytes, 2) as i16,
            immediate: word(bytes, 4) as i32,
        });
        if bytes[0] == LOAD_64 {
            words.next();
        }
    }
    instructions
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn text(bytes: &[u8], at: usize) -> String {
    let end = bytes[at..].iter().position(|byte| *byte == 0).map_or(bytes.len(), |length| at + length);
    String::from_utf8_lossy(&bytes[at..end]).into_owned()
}
