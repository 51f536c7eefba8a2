//! What the linker made of the firmware: memory, and functions that must not be in it.

use std::fs;
use std::path::Path;

use object::elf::{SHF_ALLOC, SHF_WRITE};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags};

use crate::program::{Result, at};

/// Functions of the compiler's runtime that compute floats in software: arithmetic, comparisons, conversions.
fn is_soft_float(name: &str) -> bool {
    let abi = ["f", "d", "cf", "cd", "i2", "ui2", "l2", "ul2", "h2"];
    let gnu =
        ["sf2", "df2", "sf3", "df3", "sfdf", "dfsf", "sfsi", "dfsi", "sfdi", "dfdi", "sisf", "sidf", "disf", "didf"];
    let Some(name) = name.strip_prefix("__") else { return false };
    match name.strip_prefix("aeabi_") {
        Some(name) => abi.iter().any(|start| name.starts_with(start)),
        None => gnu.iter().any(|part| name.contains(part)),
    }
}

/// Functions of `alloc`.
fn is_allocation(name: &str) -> bool {
    ["__rust_alloc", "__rg_alloc", "__rust_realloc", "__rg_realloc"].iter().any(|function| name.contains(function))
}

/// Prints the memory of a program, of which `embedded` bytes are files. Returns an error if it computes floats in software
/// or allocates.
pub(crate) fn check(path: &Path, embedded: u64) -> Result {
    let bytes = at(path, fs::read(path))?;
    let file = at(path, object::File::parse(&*bytes))?;
    let (mut flash, mut ram) = (0, 0);
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let has = |flag: u32| sh_flags & u64::from(flag) != 0;
        if has(SHF_ALLOC) {
            flash += section.file_range().map_or(0, |_| section.size());
            ram += if has(SHF_WRITE) { section.size() } else { 0 };
        }
    }
    println!("flash: {flash} bytes, {} without models, images and codes", flash - embedded);
    println!("static RAM: {ram} bytes");
    let names = |unwanted: fn(&str) -> bool| {
        let names = file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned));
        names.filter(|name| unwanted(name)).collect::<Vec<_>>()
    };
    let (floats, allocations) = (names(is_soft_float), names(is_allocation));
    match (floats.is_empty(), allocations.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("software floats are linked: {}", floats.join(", ")).into()),
        _ => Err(format!("an allocator is linked: {}", allocations.join(", ")).into()),
    }
}
