//! `pve-span status --events`: what happened lately.

use std::path::Path;

use super::format::Format;
use crate::reconcile::Error;
use crate::reconcile::events;
use crate::sys::output::Printer;
use pve_span_core::model::printable;

/// Exit code: 0.
///
/// # Errors
/// The record cannot be read.
pub fn run(root: &Path, format: Format) -> Result<u8, Error> {
    super::context::say_first_step(root);
    let events = events::load(root)?;
    let mut out = Printer::new();
    if format == Format::Json {
        out.json(&events);
        return Ok(0);
    }
    if events.is_empty() {
        out.line("nothing has happened since the node was started");
    }
    for event in events {
        let at = jiff::Timestamp::from_second(event.at).unwrap_or_default();
        out.line(&format!(
            "{at}  {}: {}",
            printable(&event.by),
            printable(&event.what)
        ));
    }
    Ok(0)
}
