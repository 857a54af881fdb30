//! A page that somebody linked to, or what it says of itself elsewhere.

#![no_main]

use hearth_core::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| probe::preview_page(input));
