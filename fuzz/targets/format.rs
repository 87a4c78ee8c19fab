//! Layout: it changes nothing but the layout, and nothing the second time.
#![no_main]

use govc_format::{FormatError, format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match format(text) {
    Ok(laid_out) => assert_eq!(format(&laid_out).as_ref(), Ok(&laid_out)),
    Err(FormatError::Syntax(diagnostics)) => assert!(!diagnostics.is_empty()),
    Err(FormatError::Changed) => panic!("the layout would change what the file says"),
});
