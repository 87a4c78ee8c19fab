//! `top`: flows between scopes, denials and rules, once a second, in a terminal.

mod screen;

use std::{
    io::IsTerminal as _, path::Path, process::Command, sync::atomic::Ordering, time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, Event, KeyEventKind},
        execute,
        terminal::{Clear, ClearType},
    },
};

use self::screen::{Ask, Screen};
use super::{apply::place, observe::stop_on_signals};
use crate::{arguments::Top, events::board::Board, excerpt, failure::Failure, output::Style};

/// How long keys and events wait for each other.
const WAIT: Duration = Duration::from_millis(25);

pub fn run(arguments: &Top, style: &Style) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "`top` needs a terminal".into(),
            help: "Elsewhere: govc observe --aggregate, or govc metrics".into(),
        });
    }
    let stop = stop_on_signals()?;
    let mut board = Board::open(place(&arguments.watched.instance), !arguments.watched.denials)?;
    let mut screen = Screen::new(style.is_coloured());
    let mut terminal = ratatui::try_init()?;
    let result = follow(arguments, &mut board, &mut screen, &mut terminal, &stop);
    ratatui::try_restore()?;
    result
}

fn follow(
    arguments: &Top,
    board: &mut Board,
    screen: &mut Screen,
    terminal: &mut DefaultTerminal,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<(), Failure> {
    let below = arguments.watched.sources.sources.as_path();
    let mut changed = true;
    while !stop.load(Ordering::SeqCst) {
        board.read(WAIT)?;
        if let Some(view) = board.due()? {
            let images = board.images(&view);
            changed |= screen.show(view, images);
        }
        while event::poll(Duration::ZERO)? {
            let asked = match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => screen.key(key),
                Event::Resize(..) => Ask::Nothing,
                _ => continue,
            };
            changed = true;
            match asked {
                Ask::Nothing => {}
                Ask::End => return Ok(()),
                Ask::Edit => edit(screen, below, terminal)?,
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
