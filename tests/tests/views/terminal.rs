//! A program in a pseudo terminal, and what it shows there.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use govc_netlab::Namespace;
use govc_tests::node::wait_until;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
    time::Timespec,
};

/// Lines and columns.
const SIZE: (u16, u16) = (40, 140);

pub struct Terminal {
    child: Child,
    master: Option<File>,
    reader: Option<JoinHandle<()>>,
    gone: Arc<AtomicBool>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a program.
    pub fn start(command: Command, namespace: &Namespace) -> Self {
        Self::sized(command, namespace, SIZE)
    }

    /// Starts a program in a terminal of so many lines and columns.
    pub fn sized(
        mut command: Command,
        namespace: &Namespace,
        (ws_row, ws_col): (u16, u16),
    ) -> Self {
        // Nobody else has it open: it is gone when this one closes it.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap());
        tcsetwinsize(&slave, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color");
        let child = namespace.run(|| command.spawn()).unwrap();
        let [rows, columns] = [ws_row, ws_col].map(|count| count.try_into().unwrap());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let master = File::from(master);
        let gone = Arc::new(AtomicBool::new(false));
        let (output, shown) = (master.try_clone().unwrap(), screen.clone());
        let ended = gone.clone();
        let reader = thread::spawn(move || show(output, &shown, &ended));
        Self { child, master: Some(master), reader: Some(reader), gone, screen }
    }

    /// Closes the terminal's own side, as one does that is killed.
    pub fn go_away(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        self.reader.take().unwrap().join().unwrap();
        self.master = None;
    }

    /// What can be read.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Looks at the cells.
    pub fn look<T>(&self, f: impl FnOnce(&vt100::Screen) -> T) -> T {
        f(self.screen.lock().unwrap().screen())
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.master.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something can be read.
    pub fn shows(&self, wanted: &str) {
        assert!(wait_until(|| self.text().contains(wanted)), "no `{wanted}` in\n{}", self.text());
    }

    /// Waits until something can be read no longer.
    pub fn hides(&self, unwanted: &str) {
        assert!(wait_until(|| !self.text().contains(unwanted)), "{unwanted}: {}", self.text());
    }

    pub fn child(&self) -> &Child {
        &self.child
    }

    pub fn end(&mut self) -> ExitStatus {
        assert!(wait_until(|| self.child.try_wait().unwrap().is_some()), "{}", self.text());
        self.child.wait().unwrap()
    }
}

/// Keeps what is shown, until nobody has the other side open any more, or this one is to be closed.
fn show(mut output: File, shown: &Mutex<vt100::Parser>, gone: &AtomicBool) {
    let mut bytes = [0; 4096];
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !gone.load(Ordering::SeqCst) {
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&moment));
        if matches!(ready, Ok(0)) {
            continue;
        }
        let Ok(len @ 1..) = output.read(&mut bytes) else { return };
        shown.lock().unwrap().process(&bytes[..len]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
