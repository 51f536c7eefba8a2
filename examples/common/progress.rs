//! A progress line on standard error. Shared by all examples.

use std::io::{IsTerminal, Write, stderr};

const WIDTH: usize = 40;

/// A bar with a title and a message. It is drawn only where standard error is a terminal.
pub(crate) struct Progress {
    title: String,
    done: usize,
    all: usize,
    visible: bool,
}

impl Progress {
    pub(crate) fn new(title: &str, all: usize) -> Self {
        Progress { title: title.to_owned(), done: 0, all, visible: stderr().is_terminal() }
    }

    pub(crate) fn set_title(&mut self, title: String) {
        self.title = title;
    }

    /// Advances by `steps` and draws the line again.
    pub(crate) fn advance(&mut self, steps: usize, message: &str) {
        self.done += steps;
        if !self.visible {
            return;
        }
        let filled = (WIDTH * self.done / self.all.max(1)).min(WIDTH);
        let bar = "█".repeat(filled) + &"░".repeat(WIDTH - filled);
        // Escape sequence: erase the line. A terminal that is gone does not stop the program.
        let _ = write!(stderr(), "\r\x1b[2K{:12} {bar} {}/{}  {message}", self.title, self.done, self.all);
    }

    /// Erases the line.
    pub(crate) fn clear(self) {
        if self.visible {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}
