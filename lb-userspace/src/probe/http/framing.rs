//! Where an answer's header ends, and where its body does (RFC 9112, 6.3). Pure: bytes in, bytes out.

/// More header lines than any status page sends.
pub const MAX_HEADERS: usize = 64;

/// The header of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub framing: Framing,
    /// Where it begins in the raw bytes.
    pub start: usize,
    /// Where the body begins.
    pub end: usize,
}

/// How the end of the body is found (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The header at `start` of `raw`, or `None` while it is not whole.
pub fn parse_head(raw: &[u8], start: usize) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(&raw[start..]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let status = response.code.ok_or("no status code")?;
    let mut framing = Framing::UntilClose;
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Chunked overrides any length, and any other coding ends with the connection.
            framing = if value.trim().eq_ignore_ascii_case("chunked") {
                Framing::Chunked
            } else {
                Framing::UntilClose
            };
            break;
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse();
            framing = Framing::Length(length.map_err(|_| "its content-length is no number")?);
        }
    }
    if status < 200 || status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head { status, framing, start, end: start + length }))
}

/// Decodes a body as it arrives; each byte is looked at once.
pub struct Body {
    pub framing: Framing,
    /// Where it begins in the raw bytes.
    start: usize,
    /// How much of the raw bytes has been decoded.
    position: usize,
    pub decoded: Vec<u8>,
}

impl Body {
    pub fn new(head: Head) -> Self {
        Self { framing: head.framing, start: head.end, position: head.end, decoded: Vec::new() }
    }

    /// Takes in what is new in `raw`; true when the body is whole.
    pub fn advance(&mut self, raw: &[u8]) -> Result<bool, &'static str> {
        match self.framing {
            Framing::Chunked => self.advance_chunks(raw),
            Framing::UntilClose => {
                self.copy(raw, raw.len());
                Ok(false)
            }
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let end = self.start.saturating_add(length);
                self.copy(raw, end.min(raw.len()));
                Ok(self.position >= end)
            }
        }
    }

    fn copy(&mut self, raw: &[u8], end: usize) {
        self.decoded.extend_from_slice(&raw[self.position..end]);
        self.position = end;
    }

    /// Takes in what is there of a chunk that has not come whole.
    pub fn take_rest(&mut self, raw: &[u8]) {
        let rest = &raw[self.position..];
        if self.framing == Framing::Chunked
            && let Ok(httparse::Status::Complete((start, _))) = httparse::parse_chunk_size(rest)
        {
            self.decoded.extend_from_slice(&rest[start..]);
        }
    }

    /// Whole chunks only. What follows the last one (trailers) is of no interest.
    fn advance_chunks(&mut self, raw: &[u8]) -> Result<bool, &'static str> {
        loop {
            let rest = &raw[self.position..];
            let Ok(parsed) = httparse::parse_chunk_size(rest) else {
                return Err("a chunk's size is no number");
            };
            let httparse::Status::Complete((start, size)) = parsed else {
                return Ok(false);
            };
            if size == 0 {
                return Ok(true);
            }
            let Some(end) = usize::try_from(size).ok().and_then(|s| s.checked_add(start)) else {
                return Err("a chunk is longer than memory");
            };
            let Some(line_end) = rest.get(end..end.saturating_add(2)) else {
                return Ok(false);
            };
            if line_end != b"\r\n" {
                return Err("a chunk does not end where it said");
            }
            self.decoded.extend_from_slice(&rest[start..end]);
            self.position += end + 2;
        }
    }
}
