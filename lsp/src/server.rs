//! The conversation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, select};
use govc_compiler::expectations;
use govc_format::FormatError;
use govc_grammar::diagnostic::{Diagnostic, Severity};
use govc_grammar::span::FileId;
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::notification::{self as note, Notification as _};
use lsp_types::request::{self, Request as _};
use lsp_types::{self as lsp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::analysis::{Analysed, Analyst, Job};
use crate::positions::Encoding;
use crate::workspace::{UnitKey, Workspace};
use crate::{Host, ServerError, symbols, uris};

/// Edits that follow each other within this time are checked together.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Policies that have been left alone for so long are analysed.
const REST: Duration = Duration::from_millis(400);

/// Options of the server, all of which may be left out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    /// Directories in which packages are looked for, as with `-I`.
    include: Vec<PathBuf>,
}

/// Speaks to an editor over standard input and output until it says goodbye.
///
/// # Errors
/// The editor breaks off or does not keep to the protocol.
pub fn run(host: &dyn Host) -> Result<(), ServerError> {
    let (connection, threads) = Connection::stdio();
    let result = converse(&connection, host);
    drop(connection);
    if result.is_ok() {
        threads.join()?;
    }
    result
}

fn converse(connection: &Connection, host: &dyn Host) -> Result<(), ServerError> {
    let (id, params) = connection.initialize_start()?;
    let params: lsp::InitializeParams = serde_json::from_value(params)?;
    let offered = params.capabilities.general.as_ref();
    let offered = offered.and_then(|general| general.position_encodings.as_deref());
    let encoding = Encoding::choose(offered);
    let answer = lsp::InitializeResult {
        capabilities: capabilities(encoding),
        server_info: Some(lsp::ServerInfo {
            name: "govc".to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }),
    };
    connection.initialize_finish(id, serde_json::to_value(answer)?)?;
    let folders = folders(&params);
    let options = params.initialization_options.clone();
    let options: Options = options.map(serde_json::from_value).transpose()?.unwrap_or_default();
    let base = folders.first().cloned().unwrap_or_default();
    let search: Vec<PathBuf> = options.include.iter().map(|dir| base.join(dir)).collect();
    let mut workspace = Workspace::new(host, &folders, &search);
    workspace.encoding = encoding;
    let mut server =
        Server { connection, workspace, edited: None, analyst: Analyst::new(), rested: false };
    server.watch_files(&params)?;
    server.listen()
}

fn folders(params: &lsp::InitializeParams) -> Vec<PathBuf> {
    #[expect(deprecated, reason = "editors that know no folders say it there")]
    let root = params.root_uri.as_ref();
    match &params.workspace_folders {
        Some(folders) if !folders.is_empty() => {
            folders.iter().map(|folder| uris::path(&folder.uri)).collect()
        }
        _ => root.map(uris::path).into_iter().collect(),
    }
}

fn capabilities(encoding: Encoding) -> lsp::ServerCapabilities {
    let semantic_tokens = lsp::SemanticTokensOptions {
        legend: symbols::legend(),
        range: Some(true),
        full: Some(lsp::SemanticTokensFullOptions::Bool(true)),
        ..lsp::SemanticTokensOptions::default()
    };
    lsp::ServerCapabilities {
        position_encoding: Some(encoding.kind()),
        text_document_sync: Some(lsp::TextDocumentSyncCapability::Options(
            lsp::TextDocumentSyncOptions {
                open_close: Some(true),
                change: Some(lsp::TextDocumentSyncKind::INCREMENTAL),
                ..lsp::TextDocumentSyncOptions::default()
            },
        )),
        hover_provider: Some(lsp::HoverProviderCapability::Simple(true)),
        definition_provider: Some(lsp::OneOf::Left(true)),
        references_provider: Some(lsp::OneOf::Left(true)),
        document_highlight_provider: Some(lsp::OneOf::Left(true)),
        rename_provider: Some(lsp::OneOf::Right(lsp::RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: lsp::WorkDoneProgressOptions::default(),
        })),
        completion_provider: Some(lsp::CompletionOptions {
            trigger_characters: Some([".", "@", "{", ","].map(str::to_owned).to_vec()),
            ..lsp::CompletionOptions::default()
        }),
        document_formatting_provider: Some(lsp::OneOf::Left(true)),
        code_action_provider: Some(lsp::CodeActionProviderCapability::Options(
            lsp::CodeActionOptions {
                code_action_kinds: Some(vec![lsp::CodeActionKind::QUICKFIX]),
                ..lsp::CodeActionOptions::default()
            },
        )),
        semantic_tokens_provider: Some(semantic_tokens.into()),
        document_symbol_provider: Some(lsp::OneOf::Left(true)),
        workspace_symbol_provider: Some(lsp::OneOf::Left(true)),
        folding_range_provider: Some(lsp::FoldingRangeProviderCapability::Simple(true)),
        ..lsp::ServerCapabilities::default()
    }
}

struct Server<'c, 'h> {
    connection: &'c Connection,
    workspace: Workspace<'h>,
    /// The file that was edited last.
    edited: Option<FileId>,
    analyst: Analyst,
    /// Nothing has been edited for a while.
    rested: bool,
}

/// What woke the server.
enum Event {
    Message(Box<Message>),
    Analysed(Analysed),
    /// Nothing happened for as long as it waited.
    Quiet,
    Gone,
}

impl Server<'_, '_> {
    fn listen(&mut self) -> Result<(), ServerError> {
        let mut wait = Some(Duration::ZERO);
        loop {
            match self.next_event(wait) {
                Event::Gone => return Err(ServerError::Gone),
                Event::Message(message) => match *message {
                    Message::Request(request) => {
                        if self.connection.handle_shutdown(&request)? {
                            return Ok(());
                        }
                        self.answer(request)?;
                    }
                    Message::Notification(notification)
                        if notification.method == note::Exit::METHOD =>
                    {
                        return Err(ServerError::Gone);
                    }
                    Message::Notification(notification) => {
                        if self.take_note(notification) {
                            self.rested = false;
                            wait = Some(DEBOUNCE);
                        }
                        continue;
                    }
                    Message::Response(_) => {}
                },
                Event::Analysed(analysed) => self.take_findings(analysed)?,
                Event::Quiet => {}
            }
            wait = self.work(wait)?;
        }
    }

    /// Waits for as long as told, or for ever.
    fn next_event(&self, wait: Option<Duration>) -> Event {
        let (messages, results) = (&self.connection.receiver, &self.analyst.results);
        let message = |message: Message| Event::Message(Box::new(message));
        let Some(wait) = wait else {
            return select! {
                recv(messages) -> one => one.map_or(Event::Gone, message),
                recv(results) -> one => one.map_or(Event::Gone, Event::Analysed),
            };
        };
        match messages.recv_timeout(wait) {
            Ok(one) => message(one),
            Err(RecvTimeoutError::Timeout) => Event::Quiet,
            Err(RecvTimeoutError::Disconnected) => Event::Gone,
        }
    }

    /// Checks one unit, or starts an analysis; answers how long to wait before the next piece.
    fn work(&mut self, waited: Option<Duration>) -> Result<Option<Duration>, ServerError> {
        if let Some(key) = self.workspace.next_stale(self.edited) {
            self.check(&key);
        }
        if let Some(key) = self.workspace.next_unpublished() {
            self.publish(&key)?;
            return Ok(Some(Duration::ZERO));
        }
        if self.workspace.next_stale(self.edited).is_some() {
            return Ok(Some(Duration::ZERO));
        }
        if self.analyst.busy {
            return Ok(None);
        }
        if !self.rested {
            if waited != Some(REST) {
                return Ok(Some(REST));
            }
            self.rested = true;
        }
        self.analyse();
        Ok(None)
    }

    fn check(&mut self, key: &UnitKey) {
        let workspace = &mut self.workspace;
        if catch_unwind(AssertUnwindSafe(|| workspace.refresh(key))).is_err() {
            // The unit is gone with what broke it, and is made anew with the next edit.
            tracing::error!("checking {} broke off", key.0.display());
        }
    }

    fn publish(&mut self, key: &UnitKey) -> Result<(), ServerError> {
        if let Some(unit) = self.workspace.unit_mut(key) {
            unit.published = unit.generation;
        }
        let Some(unit) = self.workspace.unit(key) else { return Ok(()) };
        for file in unit.roots.iter().filter_map(|id| self.workspace.files.get(*id)) {
            let params = lsp::PublishDiagnosticsParams {
                uri: file.uri.clone(),
                diagnostics: self.workspace.diagnostics(unit, file),
                version: file.version,
            };
            self.notify::<note::PublishDiagnostics>(params)?;
        }
        Ok(())
    }

    /// Hands the next policy that was not analysed over.
    fn analyse(&mut self) {
        let waits = |(_, unit): &(&UnitKey, &crate::workspace::Unit)| {
            unit.analysed.is_none() && unit.policy.as_ref().is_some_and(Analyst::takes)
        };
        let Some((key, unit)) = self.workspace.units().find(waits) else { return };
        let Some(policy) = unit.policy.clone() else { return };
        let sources = self.workspace.sources(unit);
        let job = Job { unit: key.clone(), generation: unit.generation, policy, sources };
        self.analyst.start(job);
    }

    fn take_findings(&mut self, analysed: Analysed) -> Result<(), ServerError> {
        let Analysed { unit: key, generation, diagnostics } = analysed;
        self.analyst.busy = false;
        let Some(unit) = self.workspace.unit_mut(&key) else { return Ok(()) };
        if unit.generation != generation {
            return Ok(());
        }
        let mut all: Vec<Diagnostic> = unit.diagnostics.clone();
        all.extend(diagnostics);
        unit.analysed = Some(expectations::settle(&unit.trees, all, true));
        self.publish(&key)
    }

    fn send(&self, message: impl Into<Message>) -> Result<(), ServerError> {
        self.connection.sender.send(message.into()).map_err(|_| ServerError::Gone)
    }

    fn notify<N: note::Notification>(&self, params: N::Params) -> Result<(), ServerError> {
        self.send(Notification::new(N::METHOD.to_owned(), params))
    }

    /// Asks to be told when files change on disk, if the editor can.
    fn watch_files(&self, params: &lsp::InitializeParams) -> Result<(), ServerError> {
        let watches = params.capabilities.workspace.as_ref();
        let watches = watches.and_then(|workspace| workspace.did_change_watched_files.as_ref());
        if watches.is_none_or(|watches| watches.dynamic_registration != Some(true)) {
            return Ok(());
        }
        let watcher = |pattern: &str| lsp::FileSystemWatcher {
            glob_pattern: lsp::GlobPattern::String(pattern.to_owned()),
            kind: None,
        };
        let watchers = vec![watcher("**/*.gov"), watcher("**/*.lock")];
        let options = lsp::DidChangeWatchedFilesRegistrationOptions { watchers };
        let registration = lsp::Registration {
            id: "files".to_owned(),
            method: note::DidChangeWatchedFiles::METHOD.to_owned(),
            register_options: Some(serde_json::to_value(options)?),
        };
        let params = lsp::RegistrationParams { registrations: vec![registration] };
        let method = request::RegisterCapability::METHOD.to_owned();
        self.send(Request::new("watch".to_owned().into(), method, params))
    }

    /// Takes in what the editor tells; whether policies changed.
    fn take_note(&mut self, notification: Notification) -> bool {
        let Notification { method, params } = notification;
        match method.as_str() {
            note::DidOpenTextDocument::METHOD => {
                let Some(params) = read::<lsp::DidOpenTextDocumentParams>(&method, params) else {
                    return false;
                };
                let document = params.text_document;
                let edited =
                    self.workspace.files.edit(&document.uri, document.version, document.text);
                self.edited = edited.or(self.edited);
                // What is opened is told, whether it changed or not.
                self.publish_file(edited);
            }
            note::DidChangeTextDocument::METHOD => {
                let Some(params) = read::<lsp::DidChangeTextDocumentParams>(&method, params) else {
                    return false;
                };
                self.change(params);
            }
            note::DidCloseTextDocument::METHOD => {
                let Some(params) = read::<lsp::DidCloseTextDocumentParams>(&method, params) else {
                    return false;
                };
                let path = uris::path(&params.text_document.uri);
                self.workspace.files.close(&path, self.workspace.host);
                self.clear_if_gone(&params.text_document.uri);
            }
            note::DidChangeWatchedFiles::METHOD => {
                let Some(params) = read::<lsp::DidChangeWatchedFilesParams>(&method, params) else {
                    return false;
                };
                for change in params.changes {
                    let path = uris::path(&change.uri);
                    if path.extension().is_some_and(|suffix| suffix == "lock") {
                        self.workspace.files.touch();
                    } else {
                        self.workspace.files.reread(&path, self.workspace.host);
                        self.clear_if_gone(&change.uri);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn publish_file(&mut self, file: Option<FileId>) {
        let units = self.workspace.units();
        let about =
            file.and_then(|id| units.into_iter().find(|(_, unit)| unit.roots.contains(&id)));
        if let Some(key) = about.map(|(key, _)| key.clone()) {
            let _ = self.publish(&key);
        }
    }

    /// Takes back what was told about a file that is no more.
    fn clear_if_gone(&self, uri: &lsp::Uri) {
        if self.workspace.file(uri).is_none() {
            let params = lsp::PublishDiagnosticsParams::new(uri.clone(), Vec::new(), None);
            let _ = self.notify::<note::PublishDiagnostics>(params);
        }
    }

    fn change(&mut self, params: lsp::DidChangeTextDocumentParams) {
        let lsp::DidChangeTextDocumentParams { text_document, content_changes } = params;
        let Some(file) = self.workspace.file(&text_document.uri) else { return };
        let mut text = file.text.clone();
        let mut lines = Some(file.lines.clone());
        for change in content_changes {
            match change.range {
                None => text = change.text,
                Some(range) => {
                    let lines = lines.take().unwrap_or_else(|| crate::positions::Lines::new(&text));
                    let span = lines.span(&text, FileId(0), range, self.workspace.encoding);
                    let (start, end) = (span.start as usize, span.end.max(span.start) as usize);
                    text.replace_range(start..end, &change.text);
                }
            }
            lines = None;
        }
        let version = text_document.version;
        self.edited = self.workspace.files.edit(&text_document.uri, version, text);
    }

    /// Answers a request, whatever becomes of it.
    fn answer(&mut self, request: Request) -> Result<(), ServerError> {
        let (id, method) = (request.id.clone(), request.method.clone());
        let workspace = &mut self.workspace;
        let answered = catch_unwind(AssertUnwindSafe(|| respond(workspace, request)));
        self.send(answered.unwrap_or_else(|_| {
            tracing::error!("answering {method} broke off");
            let message = "this is a mistake in govc".to_owned();
            Response::new_err(id, ErrorCode::InternalError as i32, message)
        }))
    }
}

fn read<P: DeserializeOwned>(method: &str, params: serde_json::Value) -> Option<P> {
    serde_json::from_value(params)
        .inspect_err(|error| tracing::warn!("cannot read the parameters of {method}: {error}"))
        .ok()
}

/// The answer to a request.
fn respond(workspace: &mut Workspace<'_>, request: Request) -> Response {
    let Request { id, method, params } = request;
    /// Reads parameters, asks, and writes the answer down.
    fn with<R: request::Request>(
        id: lsp_server::RequestId,
        params: serde_json::Value,
        ask: impl FnOnce(R::Params) -> Result<R::Result, String>,
    ) -> Response {
        match serde_json::from_value(params) {
            Ok(params) => match ask(params) {
                Ok(answer) => Response::new_ok(id, answer),
                Err(why) => Response::new_err(id, ErrorCode::RequestFailed as i32, why),
            },
            Err(error) => Response::new_err(id, ErrorCode::InvalidParams as i32, error.to_string()),
        }
    }
    match method.as_str() {
        request::HoverRequest::METHOD => {
            with::<request::HoverRequest>(id, params, |params| Ok(workspace.hover(&params)))
        }
        request::GotoDefinition::METHOD => {
            with::<request::GotoDefinition>(id, params, |params| Ok(workspace.definition(&params)))
        }
        request::References::METHOD => {
            with::<request::References>(id, params, |params| Ok(workspace.references(&params)))
        }
        request::DocumentHighlightRequest::METHOD => {
            with::<request::DocumentHighlightRequest>(id, params, |params| {
                Ok(workspace.highlights(&params))
            })
        }
        request::PrepareRenameRequest::METHOD => {
            with::<request::PrepareRenameRequest>(id, params, |params| {
                Ok(workspace.prepare_rename(&params))
            })
        }
        request::Rename::METHOD => {
            with::<request::Rename>(id, params, |params| workspace.rename(&params).map(Some))
        }
        request::Completion::METHOD => {
            with::<request::Completion>(id, params, |params| Ok(workspace.complete(&params)))
        }
        request::Formatting::METHOD => {
            with::<request::Formatting>(id, params, |params| format(workspace, &params))
        }
        request::CodeActionRequest::METHOD => {
            with::<request::CodeActionRequest>(id, params, |params| {
                Ok(workspace.code_actions(&params))
            })
        }
        request::SemanticTokensFullRequest::METHOD => {
            with::<request::SemanticTokensFullRequest>(id, params, |params| {
                Ok(workspace.semantic_tokens(&params.text_document.uri, None))
            })
        }
        request::SemanticTokensRangeRequest::METHOD => {
            with::<request::SemanticTokensRangeRequest>(id, params, |params| {
                let tokens =
                    workspace.semantic_tokens(&params.text_document.uri, Some(params.range));
                Ok(tokens.map(|tokens| match tokens {
                    lsp::SemanticTokensResult::Tokens(tokens) => tokens.into(),
                    lsp::SemanticTokensResult::Partial(partial) => partial.into(),
                }))
            })
        }
        request::DocumentSymbolRequest::METHOD => {
            with::<request::DocumentSymbolRequest>(id, params, |params| {
                Ok(workspace.document_symbols(&params))
            })
        }
        request::WorkspaceSymbolRequest::METHOD => {
            with::<request::WorkspaceSymbolRequest>(id, params, |params| {
                Ok(Some(workspace.workspace_symbols(&params)))
            })
        }
        request::FoldingRangeRequest::METHOD => {
            with::<request::FoldingRangeRequest>(id, params, |params| Ok(workspace.folds(&params)))
        }
        _ => {
            let message = format!("`{method}` is not known");
            Response::new_err(id, ErrorCode::MethodNotFound as i32, message)
        }
    }
}

/// The edit that lays a file out: from the first line that changes to the last.
fn format(
    workspace: &Workspace<'_>,
    params: &lsp::DocumentFormattingParams,
) -> Result<Option<Vec<lsp::TextEdit>>, String> {
    let Some(file) = workspace.file(&params.text_document.uri) else { return Ok(None) };
    let after = match govc_format::format(&file.text) {
        Ok(after) => after,
        Err(FormatError::Syntax(diagnostics)) => {
            let errors = diagnostics.iter().filter(|one| one.severity() == Severity::Error).count();
            tracing::info!("{} has {errors} syntax errors", file.path.display());
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let before = file.text.as_str();
    if after == before {
        return Ok(Some(Vec::new()));
    }
    let lines = |text: &str| text.split_inclusive('\n').map(str::len).collect::<Vec<_>>();
    let same = |one: &str, other: &str| {
        let same = one.split_inclusive('\n').zip(other.split_inclusive('\n'));
        same.take_while(|(one, other)| one == other).map(|(line, _)| line.len()).sum::<usize>()
    };
    let start = same(before, &after);
    let (mut old, mut new) = (before.len(), after.len());
    for (old_line, new_line) in lines(before).into_iter().rev().zip(lines(&after).into_iter().rev())
    {
        let (Some(old_start), Some(new_start)) =
            (old.checked_sub(old_line), new.checked_sub(new_line))
        else {
            break;
        };
        if old_start < start
            || new_start < start
            || before.get(old_start..old) != after.get(new_start..new)
        {
            break;
        }
        (old, new) = (old_start, new_start);
    }
    let position = |byte| {
        let byte = u32::try_from(byte).unwrap_or(u32::MAX);
        file.lines.position(&file.text, byte, workspace.encoding)
    };
    let range = lsp::Range::new(position(start), position(old));
    let text = after.get(start..new).unwrap_or_default().to_owned();
    Ok(Some(vec![lsp::TextEdit::new(range, text)]))
}
