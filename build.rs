//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A static position-independent program relocates itself at start, by a table with an entry for
    // every pointer. Packed, it is a hundredth of its size: 3 MB less of 55. The C library has to
    // know the form: glibc 2.36, that of Debian 12.
    println!("cargo:rustc-link-arg-bin=coracle=-Wl,-z,pack-relative-relocs");
}
