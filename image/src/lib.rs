//! The image file of a compiled policy.
//!
//! An [`Image`] is checked bytes: its digest is right, everything that its header points at lies
//! inside, and its names decode. Layout: [`govc_abi::image`]. The kernel gets the words as they
//! are; [`ImageTables`] reads them just as the kernel does, for the simulator.

mod image;
mod lookup;
mod names;
mod tables;
mod translation;

pub use image::digest_of;
pub use image::{Image, ImageError, Part, Program, WrittenLabel};
pub use lookup::glob;
pub use names::{
    Carriage, Domain, File, LabelKind, LabelName, Names, Numbered, Object, Rule, Scope,
    SubjectIndex, TranslationName, Zone,
};
pub use tables::ImageTables;
pub use translation::Translation;
