//! What somebody says of a file, and the file.

#![no_main]

use hearth_core::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| probe::media(input));
