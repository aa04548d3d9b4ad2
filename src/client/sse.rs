//! Server-sent events, as `/v1/events` sends them.

use super::error::ClientError;
use super::http::BodyStream;

/// Bytes of one event; a longer one is no event of ours.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One event. Comments, which keep the connection awake, are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its id: give it as `last-event-id` to go on after it.
    pub id: Option<String>,
    /// Its name, empty where it has none.
    pub event: String,
    /// Its data, lines joined.
    pub data: String,
}

/// Reads events from a body as they come.
#[derive(Debug)]
pub struct Events {
    body: BodyStream,
    parser: Parser,
}

impl Events {
    pub(super) fn new(body: BodyStream) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next event; `None` when the broker ended the stream.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.parser.event()? {
                return Ok(Some(event));
            }
            match self.body.chunk().await? {
                Some(bytes) => self.parser.rest.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// The events in a body that comes in these pieces.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ServerEvent>, ClientError> {
    let (mut parser, mut seen) = (Parser::default(), Vec::new());
    for piece in pieces {
        parser.rest.extend_from_slice(piece);
        while let Some(event) = parser.event()? {
            seen.push(event);
        }
    }
    Ok(seen)
}

#[derive(Debug, Default)]
struct Parser {
    rest: Vec<u8>,
    open: ServerEvent,
    has_data: bool,
}

impl Parser {
    /// The next event that is whole in what was read so far.
    fn event(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        let mut read = 0;
        let mut found = None;
        while let Some(length) = self.rest[read..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[read..read + length]).trim_end_matches('\r').to_owned();
            read += length + 1;
            if line.is_empty() {
                let event = std::mem::take(&mut self.open);
                if std::mem::take(&mut self.has_data) {
                    found = Some(event);
                    break;
                }
            } else {
                self.line(&line);
            }
        }
        self.rest.drain(..read);
        if self.rest.len() + self.open.data.len() > EVENT_BYTES_MAX {
            return Err(ClientError::Protocol(format!("an event is longer than {EVENT_BYTES_MAX} bytes")));
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.open.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.open.event),
            "data" => {
                if self.has_data {
                    self.open.data.push('\n');
                }
                self.open.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Parser, ServerEvent, events};

    #[test]
    fn events_are_found_however_they_are_cut() {
        let text = ": awake\n\nid: 7\nevent: lease\ndata: {\"a\":1}\r\n\ndata:x\ndata: y\n\nid: 8\n";
        let expected = [
            ServerEvent { id: Some("7".into()), event: "lease".into(), data: "{\"a\":1}".into() },
            ServerEvent { id: None, event: String::new(), data: "x\ny".into() },
        ];
        for size in 1..text.len() {
            let seen = events(text.as_bytes().chunks(size)).expect("short events");
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut parser = Parser { rest: vec![b'x'; super::EVENT_BYTES_MAX + 1], ..Parser::default() };
        assert!(parser.event().is_err());
    }
}
