//! `top`: flows between scopes, denials and rules, once a second, in a terminal.

mod screen;

use std::{
    io::IsTerminal as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_loader::{instance::Place, status};

use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, Event, KeyEventKind},
        execute,
        terminal::{Clear, ClearType, disable_raw_mode},
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use self::screen::{Ask, Screen};
use super::{apply::place, observe::stop_on_signals};
use crate::{arguments::Top, events::board::Board, excerpt, failure::Failure, output::Style};

/// How long keys and events wait for each other.
const WAIT: Duration = Duration::from_millis(25);
/// How long whoever draws may take to an end that was asked for. A terminal that takes nothing, or that
/// is gone, may hold it for ever.
const END_PATIENCE: Duration = Duration::from_secs(2);

pub fn run(arguments: &Top, style: &Style) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "`top` needs a terminal".into(),
            help: "Elsewhere: govc observe --aggregate, or govc metrics".into(),
        });
    }
    let ending = Ending { stop: stop_on_signals()?, away: Arc::default() };
    let place = place(&arguments.watched.instance);
    let mut board = Board::open(place.clone(), !arguments.watched.denials)?;
    ending.insist(place);
    let mut screen = Screen::new(style.is_coloured());
    let mut terminal = ratatui::try_init()?;
    let result = follow(arguments, &mut board, &mut screen, &mut terminal, &ending);
    // Before anything else: whatever becomes of the terminal, permits are not reported any longer.
    drop(board);
    let restored = ratatui::try_restore();
    if restored.is_err() || is_gone() {
        // Dropped, it would show the cursor, and tell on a standard error that is gone too that it
        // cannot, which ends in a panic.
        std::mem::forget(terminal);
    }
    if is_gone() {
        // Nobody is left to whom anything could be told.
        return Ok(());
    }
    restored?;
    result
}

/// Whether nobody is at the other end of the terminal any more: reading it would then give nothing, at once
/// and for ever, and whoever waits for keys would never come back.
fn is_gone() -> bool {
    let input = std::io::stdin();
    let mut fds = [PollFd::new(&input, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
}

/// When to end.
struct Ending {
    stop: Arc<AtomicBool>,
    /// An editor has the terminal: it ends first.
    away: Arc<AtomicBool>,
}

impl Ending {
    fn is_due(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || is_gone()
    }

    /// Ends the process when it does not come to an end that is due: there is one reader of events, and
    /// nobody else could be it as long as this one hangs.
    fn insist(&self, place: Place) {
        let (stop, away) = (self.stop.clone(), self.away.clone());
        thread::spawn(move || {
            let mut due: Option<Instant> = None;
            loop {
                thread::sleep(WAIT * 4);
                if away.load(Ordering::SeqCst) || !(stop.load(Ordering::SeqCst) || is_gone()) {
                    due = None;
                } else if due.get_or_insert_with(Instant::now).elapsed() > END_PATIENCE {
                    // Fails when the instance was detached meanwhile; then nothing is reported either.
                    let _ = status::report_permits(&place, false);
                    let _ = disable_raw_mode();
                    std::process::exit(0);
                }
            }
        });
    }
}

fn follow(
    arguments: &Top,
    board: &mut Board,
    screen: &mut Screen,
    terminal: &mut DefaultTerminal,
    ending: &Ending,
) -> Result<(), Failure> {
    let below = arguments.watched.sources.sources.as_path();
    let mut changed = true;
    while !ending.is_due() {
        board.read(WAIT)?;
        if let Some(view) = board.due()? {
            let images = board.images(&view);
            changed |= screen.show(view, images);
        }
        while !is_gone() && event::poll(Duration::ZERO)? {
            let asked = match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => screen.key(key),
                Event::Resize(..) => Ask::Nothing,
                _ => continue,
            };
            changed = true;
            match asked {
                Ask::Nothing => {}
                Ask::End => return Ok(()),
                Ask::Edit => {
                    ending.away.store(true, Ordering::SeqCst);
                    let edited = edit(screen, below, terminal);
                    ending.away.store(false, Ordering::SeqCst);
                    edited?;
                }
            }
        }
        if std::mem::take(&mut changed) {
            let source = screen
                .chosen_rule()
                .map(|(image, rule)| excerpt::excerpt(image.names(), rule, below));
            terminal.draw(|frame| screen.draw(frame, source.as_ref()))?;
        }
    }
    Ok(())
}

/// Opens the chosen rule in the user's editor.
fn edit(screen: &mut Screen, below: &Path, terminal: &mut DefaultTerminal) -> Result<(), Failure> {
    let Some((image, rule)) = screen.chosen_rule() else { return Ok(()) };
    let names = image.names();
    let Some(rule) = names.rules.get(rule as usize) else { return Ok(()) };
    let Some(file) = names.files.get(rule.file as usize) else { return Ok(()) };
    let (path, line) = (excerpt::path_of(&file.name, below), rule.line);
    if !path.is_file() {
        screen.say(format!("`{}` is not here; --sources DIR says where it is", path.display()));
        return Ok(());
    }
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    // An editor is named with its options: `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    ratatui::try_restore()?;
    let ended = Command::new(program).args(words).arg(format!("+{line}")).arg(&path).status();
    *terminal = ratatui::try_init()?;
    // Not every terminal hands out an empty screen.
    execute!(std::io::stdout(), Clear(ClearType::All))?;
    if let Err(error) = ended {
        screen.say(format!("cannot start `{program}`: {error}; $EDITOR names another"));
    }
    Ok(())
}
