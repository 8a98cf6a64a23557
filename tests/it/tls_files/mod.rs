//! Certificate files: every mistake has its message, and what is loaded is what clients get.

mod broker_trust;
mod choice;
mod dev;
mod files;
mod messages;
