//! The log lines of every gateway in this process, as text and as JSON, written as the program writes them.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sheet {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The process's log from the first call on. Tests find their own lines by what only they say.
pub struct Journal {
    text: Sheet,
    json: Sheet,
}

impl Journal {
    /// Call it before the gateway says what is looked for.
    pub fn open() -> &'static Self {
        static JOURNAL: OnceLock<Journal> = OnceLock::new();
        JOURNAL.get_or_init(|| {
            let journal = Self {
                text: Sheet::default(),
                json: Sheet::default(),
            };
            tracing_subscriber::registry()
                .with(LevelFilter::INFO)
                .with(
                    fmt::layer()
                        .with_ansi(false)
                        .with_writer(journal.text.clone()),
                )
                .with(
                    fmt::layer()
                        .json()
                        .flatten_event(true)
                        .with_writer(journal.json.clone()),
                )
                .init();
            journal
        })
    }

    /// The line with all of these words, once it is there.
    pub async fn line(&self, words: &[&str]) -> String {
        find(&self.text, words).await
    }

    /// The same as JSON.
    pub async fn json(&self, words: &[&str]) -> String {
        find(&self.json, words).await
    }

    /// Every byte so far, of both forms.
    pub fn all(&self) -> Vec<u8> {
        let text = self.text.0.lock().unwrap().clone();
        [text, self.json.0.lock().unwrap().clone()].concat()
    }
}

async fn find(sheet: &Sheet, words: &[&str]) -> String {
    let mut found = None;
    super::eventually(async || {
        let text = String::from_utf8_lossy(&sheet.0.lock().unwrap()).into_owned();
        let mut lines = text.lines();
        found = lines
            .find(|line| words.iter().all(|word| line.contains(word)))
            .map(str::to_owned);
        found.is_some()
    })
    .await;
    found.unwrap_or_else(|| panic!("no log line says {words:?}"))
}
