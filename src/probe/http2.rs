//! The parts of HTTP/2 (RFC 9113) and its header compression (RFC 7541) that are needed to read a status.

use super::Response;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `SETTINGS_ENABLE_PUSH` = 0.
const SETTINGS: &[u8] = &[0, 2, 0, 0, 0, 0];
/// Frames are not longer unless the receiver allows it.
const LONGEST: usize = 16_384;
const HEADER: usize = 9;
/// Everything that a server sends before its first response is shorter.
const MOST: usize = 4 * LONGEST;

/// Types of frames (RFC 9113, 6).
mod kind {
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const GOAWAY: u8 = 7;
}

/// Flags of a HEADERS frame (RFC 9113, 6.2).
mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Indexes in the static table of names (RFC 7541, appendix A).
mod name {
    pub const AUTHORITY: usize = 1;
    pub const PATH: usize = 4;
    pub const ACCEPT: usize = 19;
    pub const USER_AGENT: usize = 58;
    /// Those that are `:status`, with their values.
    pub const STATUS: [(usize, u16); 7] = [(8, 200), (9, 204), (10, 206), (11, 304), (12, 400), (13, 404), (14, 500)];
}

/// The client's side of a connection up to the end of its only request.
pub(super) fn request(scheme: &str, host: &str, path: &str) -> Vec<u8> {
    const GET: u8 = 0x80 | 2;
    let scheme = 0x80 | if scheme == "https" { 7 } else { 6 };
    let mut fields = vec![GET, scheme];
    for (name, value) in
        [(name::PATH, path), (name::AUTHORITY, host), (name::USER_AGENT, "mcp-launch"), (name::ACCEPT, "*/*")]
    {
        // A literal that is not indexed, with a name from the table (RFC 7541, 6.2.2), not compressed.
        integer(&mut fields, 0, 4, name);
        integer(&mut fields, 0, 7, value.len());
        fields.extend_from_slice(value.as_bytes());
    }
    let settings = frame(kind::SETTINGS, 0, 0, SETTINGS);
    let headers = frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, &fields);
    [PREFACE, &settings, &headers].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An integer that begins in the last `prefix` bits of a byte (RFC 7541, 5.1).
fn integer(into: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    let most = (1_usize << prefix) - 1;
    if value < most {
        return into.push(first | byte(value));
    }
    into.push(first | byte(most));
    let mut rest = value - most;
    while rest >= 128 {
        into.push(byte(rest % 128) | 0x80);
        rest /= 128;
    }
    into.push(byte(rest));
}

/// A response, as far as it has been received.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    buffer: Vec<u8>,
    taken: usize,
}

impl ResponseReader {
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        self.taken += bytes.len();
        self.buffer.extend_from_slice(bytes);
        while let Some(header) = self.buffer.first_chunk::<HEADER>() {
            let [a, b, c, kind, flags, stream @ ..] = *header;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
            let end = self.taken - self.buffer.len() + HEADER + length;
            if length > LONGEST || end > MOST {
                return Some(Response::Other);
            }
            if self.buffer.len() < HEADER + length {
                break;
            }
            let frame: Vec<u8> = self.buffer.drain(..HEADER + length).skip(HEADER).collect();
            match (kind, stream) {
                (kind::HEADERS, 1) => match fields(&frame, flags).and_then(status) {
                    // More is to follow.
                    Some(100..200) => {}
                    Some(status @ 200..) => return Some(Response::Status(status)),
                    _ => return Some(Response::Other),
                },
                (kind::RST_STREAM, 1) | (kind::GOAWAY, _) => return Some(Response::Other),
                _ => {}
            }
        }
        (self.taken > MOST).then_some(Response::Other)
    }
}

/// The compressed fields of a HEADERS frame.
fn fields(frame: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, frame) = if flags & flag::PADDED == 0 {
        (0, frame)
    } else {
        let (padding, rest) = frame.split_first()?;
        (usize::from(*padding), rest)
    };
    let frame = if flags & flag::PRIORITY == 0 { frame } else { frame.get(5..)? };
    frame.get(..frame.len().checked_sub(padding)?)
}

/// The status, which is the first field of a response (RFC 9113, 8.3).
fn status(mut fields: &[u8]) -> Option<u16> {
    // Only size updates of the table can come before it (RFC 7541, 6.3).
    while let Some(0x20..0x40) = fields.first() {
        let more = |byte: &u8| byte & 0x80 != 0;
        let is_long = fields.first()? & 0x1f == 0x1f;
        let length = if is_long { fields.iter().skip(1).position(|byte| !more(byte))? + 2 } else { 1 };
        fields = fields.get(length..)?;
    }
    let (first, rest) = fields.split_first()?;
    let known = |index: usize| name::STATUS.iter().find(|(place, _)| *place == index);
    if first & 0x80 != 0 {
        return known(usize::from(first & 0x7f)).map(|(_, status)| *status);
    }
    let mask = if first & 0x40 == 0 { 0x0f } else { 0x3f };
    known(usize::from(first & mask))?;
    let (length, rest) = rest.split_first()?;
    let value = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 != 0 {
        return digits(value);
    }
    let is_number = value.len() == 3 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// A number of three digits in the code of RFC 7541, appendix B: 0, 1 and 2 have five bits, the others six.
fn digits(code: &[u8]) -> Option<u16> {
    let mut bits = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut next =
        |count: usize| -> Option<u16> { (0..count).try_fold(0, |value, _| Some(value << 1 | bits.next()?)) };
    (0..3).try_fold(0, |number, _| {
        let digit = match next(5)? {
            short @ 0..3 => short,
            long @ 12..16 => (long << 1 | next(1)?).checked_sub(0b01_1001)? + 3,
            _ => return None,
        };
        (digit < 10).then_some(number * 10 + digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &[u8]) -> Option<Response> {
        ResponseReader::default().received(bytes)
    }

    #[test]
    fn a_status_is_read_in_every_form_that_servers_write() {
        for (fields, expected) in [
            (&[0x88][..], Some(200)),
            (&[0x8e, 0x40], Some(500)),
            (&[0x3f, 0xe1, 0x1f, 0x20, 0x88], Some(200)),
            (&[0x48, 0x03, b'5', b'0', b'3'], Some(503)),
            (&[0x08, 0x03, b'4', b'2', b'9'], Some(429)),
            // 302, 307 and 503 as in RFC 7541, C.6, and from the table.
            (&[0x48, 0x82, 0x64, 0x02], Some(302)),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307)),
            (&[0x48, 0x83, 0x6c, 0x0c, 0xff], Some(503)),
            (&[0x48, 0x04, b'+', b'2', b'0', b'0'], None),
            (&[0x48, 0x05, b'6', b'5', b'5', b'3', b'5'], None),
            (&[0x5f, 0x02], None),
            (&[0x48, 0x7f], None),
            (&[], None),
        ] {
            assert_eq!(status(fields), expected, "{fields:x?}");
        }
    }

    #[test]
    fn every_number_comes_out_as_it_went_in() {
        let codes = ["00000", "00001", "00010", "011001", "011010", "011011", "011100", "011101", "011110", "011111"];
        for number in 100..600_u16 {
            let bits: String = number.to_string().bytes().map(|digit| codes[usize::from(digit - b'0')]).collect();
            let padded = format!("{bits:1<24}");
            let code: Vec<u8> =
                (0..3).map(|at| u8::from_str_radix(&padded[at * 8..at * 8 + 8], 2).unwrap()).collect();
            assert_eq!(digits(&code[..bits.len().div_ceil(8)]), Some(number));
        }
    }

    #[test]
    fn frames_are_put_together_and_others_are_passed_over() {
        let all = [
            frame(kind::SETTINGS, 0, 0, SETTINGS),
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x08, 0x03, b'1', b'0', b'3']),
            frame(kind::HEADERS, flag::END_HEADERS, 3, &[0x88]),
            frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &[2, 0, 0, 0, 0, 0, 0x8d, 0, 0]),
        ]
        .concat();
        let mut answer = ResponseReader::default();
        let found: Vec<Response> = all.iter().filter_map(|byte| answer.received(&[*byte])).collect();
        assert_eq!(found, [Response::Status(404)]);
    }

    #[test]
    fn what_is_no_http_2_is_reported() {
        assert_eq!(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Some(Response::Other));
        assert_eq!(answer(&frame(kind::GOAWAY, 0, 0, &[0; 8])), Some(Response::Other));
        let settings = frame(kind::SETTINGS, 0, 0, &[0; LONGEST]);
        assert_eq!(answer(&settings.repeat(5)), Some(Response::Other));
        assert_eq!(answer(&frame(kind::SETTINGS, 0, 0, SETTINGS)), None);
    }

    #[test]
    fn long_values_have_long_lengths() {
        let mut written = Vec::new();
        integer(&mut written, 0x20, 5, 1337);
        assert_eq!(written, [0x3f, 0x9a, 0x0a], "RFC 7541, C.1.2");
    }
}
