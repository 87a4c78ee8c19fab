//! The image file of a compiled policy.
//!
//! An [`Image`] is checked bytes: its digest is right, everything that its header points at lies
//! inside, and its names decode. Layout: [`govc_abi::image`]. The kernel gets the words as they
//! are; [`ImageTables`] reads them just as the kernel does, for the simulator.

mod image;
mod lookup;
mod names;
mod tables;

pub use image::digest_of;
pub use image::{Image, ImageError, Part, Program, Template};
pub use lookup::glob;
pub use names::{
    Domain, File, Names, Numbered, Object, Rule, Scope, SubjectIndex, TemplateKind, TemplateName,
    Zone,
};
pub use tables::ImageTables;
