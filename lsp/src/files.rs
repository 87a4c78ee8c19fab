//! Texts and their trees: what is on disk, overlaid with what is being edited.

use std::path::{Path, PathBuf};

use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::{FileId, Span};
use lsp_types::{Position, Range, Uri};
use rustc_hash::FxHashMap;

use crate::Host;
use crate::positions::{Encoding, Lines};
use crate::uris;

/// A file with its tree, parsed once for each text.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) uri: Uri,
    pub(crate) id: FileId,
    pub(crate) text: String,
    pub(crate) lines: Lines,
    pub(crate) tree: ast::File,
    /// What the parser says.
    pub(crate) syntax: Vec<Diagnostic>,
    /// Grows with every change of the text.
    pub(crate) revision: u64,
    /// The editor's own number of the text, while it is open there.
    pub(crate) version: Option<i32>,
    /// It is open, or on disk.
    pub(crate) exists: bool,
}

impl File {
    pub(crate) fn range(&self, span: Span, encoding: Encoding) -> Range {
        self.lines.range(&self.text, span, encoding)
    }

    pub(crate) fn byte(&self, position: Position, encoding: Encoding) -> usize {
        self.lines.byte(&self.text, position, encoding)
    }

    /// The empty span at a position.
    pub(crate) fn place(&self, position: Position, encoding: Encoding) -> Span {
        self.lines.span(&self.text, self.id, Range::new(position, position), encoding)
    }

    pub(crate) fn text_of(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// `acme.payments`, when the file says so.
    pub(crate) fn package(&self) -> Option<String> {
        self.tree.package.as_ref().map(|path| path.text().into())
    }

    fn set_text(&mut self, text: String) {
        let (tree, syntax) = govc_grammar::parse(self.id, &text);
        self.lines = Lines::new(&text);
        (self.text, self.tree, self.syntax) = (text, tree, syntax);
        self.revision += 1;
    }
}

/// All files that were ever read; a [`FileId`] is a position here, and stays one.
#[derive(Default)]
pub(crate) struct Files {
    list: Vec<File>,
    by_path: FxHashMap<PathBuf, FileId>,
    /// Grows with every change of any file.
    pub(crate) revision: u64,
}

impl Files {
    pub(crate) fn get(&self, id: FileId) -> Option<&File> {
        self.list.get(id.0 as usize)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.list.iter().filter(|file| file.exists)
    }

    pub(crate) fn at(&self, path: &Path) -> Option<&File> {
        self.get(*self.by_path.get(path)?).filter(|file| file.exists)
    }

    /// The file at a path, read if it is not known.
    pub(crate) fn find(&mut self, path: &Path, host: &dyn Host) -> Option<FileId> {
        if let Some(file) = self.at(path) {
            return Some(file.id);
        }
        let text = host.read(path)?;
        self.put(path, None, text)
    }

    /// A text that is being edited.
    pub(crate) fn edit(&mut self, uri: &Uri, version: i32, text: String) -> Option<FileId> {
        let id = self.put(&uris::path(uri), Some(uri.clone()), text)?;
        self.file_mut(id)?.version = Some(version);
        Some(id)
    }

    /// The editor lets go of a file: what is on disk counts again.
    pub(crate) fn close(&mut self, path: &Path, host: &dyn Host) {
        let Some(id) = self.by_path.get(path).copied() else { return };
        if let Some(file) = self.file_mut(id) {
            file.version = None;
        }
        self.reread(path, host);
    }

    /// Something happened to a file on disk.
    pub(crate) fn reread(&mut self, path: &Path, host: &dyn Host) {
        let open = |file: &File| file.version.is_some();
        if self.by_path.get(path).and_then(|id| self.get(*id)).is_some_and(open) {
            return;
        }
        match host.read(path) {
            Some(text) => drop(self.put(path, None, text)),
            None => {
                if let Some(id) = self.by_path.get(path).copied() {
                    self.revision += 1;
                    self.file_mut(id).into_iter().for_each(|file| file.exists = false);
                }
            }
        }
    }

    /// Other things than texts changed that policies depend on.
    pub(crate) fn touch(&mut self) {
        self.revision += 1;
        self.list.iter_mut().for_each(|file| file.revision += 1);
    }

    fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.list.get_mut(id.0 as usize)
    }

    fn put(&mut self, path: &Path, uri: Option<Uri>, text: String) -> Option<FileId> {
        if let Some(id) = self.by_path.get(path).copied() {
            let file = self.list.get_mut(id.0 as usize)?;
            if let Some(uri) = uri {
                file.uri = uri;
            }
            if file.text != text || !file.exists {
                file.exists = true;
                file.set_text(text);
                self.revision += 1;
            }
            return Some(id);
        }
        let id = FileId(u32::try_from(self.list.len()).ok()?);
        let uri = uri.or_else(|| uris::uri(path))?;
        let mut file = File {
            path: path.to_path_buf(),
            uri,
            id,
            text: String::new(),
            lines: Lines::new(""),
            tree: ast::File::default(),
            syntax: Vec::new(),
            revision: 0,
            version: None,
            exists: true,
        };
        file.set_text(text);
        self.list.push(file);
        self.by_path.insert(path.to_path_buf(), id);
        self.revision += 1;
        Some(id)
    }
}
