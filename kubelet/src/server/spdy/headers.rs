//! Compressed header blocks: one zlib stream for each direction of a connection, flushed at the
//! end of each block.

use bytes::Buf as _;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Headers, SpdyError, dictionary::DICTIONARY};

/// An uncompressed block may be this long.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// Made at first use.
#[derive(Default)]
pub struct Deflater(Option<Compress>);

impl Deflater {
    /// A header block, compressed.
    pub fn headers(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let context = match &mut self.0 {
            Some(context) => context,
            empty => {
                let mut context = Compress::new(Compression::best(), true);
                context
                    .set_dictionary(DICTIONARY)
                    .map_err(|_| SpdyError::Compression)?;
                empty.insert(context)
            }
        };
        let block = serialize(headers);
        let mut out = Vec::with_capacity(block.len() + 64);
        let start = context.total_in();
        loop {
            let consumed = (context.total_in() - start) as usize;
            context
                .compress_vec(&block[consumed..], &mut out, FlushCompress::Sync)
                .map_err(|_| SpdyError::Compression)?;
            let all_in = (context.total_in() - start) as usize == block.len();
            // Only when there is room left has everything been flushed.
            if all_in && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(block.len() + 64);
        }
    }
}

pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Inflater(Decompress::new(true))
    }
}

impl Inflater {
    /// Reads a compressed header block.
    pub fn headers(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(compressed)?).ok_or(SpdyError::Malformed)
    }

    fn inflate(&mut self, compressed: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            let rest = &compressed[consumed..];
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(SpdyError::Compression),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|_| SpdyError::Compression)?;
                    continue;
                }
                Err(_) => return Err(SpdyError::Compression),
            }
            let all_in = (self.0.total_in() - start) as usize == compressed.len();
            if all_in && out.len() < out.capacity() {
                return Ok(out);
            }
            if out.len() > MAX_BLOCK_BYTES {
                return Err(SpdyError::TooLarge(out.len()));
            }
            if out.len() < out.capacity() {
                // Room is left, and still not all input was taken: it makes no sense.
                return Err(SpdyError::Compression);
            }
            out.reserve(out.capacity());
        }
    }
}

fn serialize(headers: &Headers) -> Vec<u8> {
    let mut block = Vec::new();
    block.extend((headers.len() as u32).to_be_bytes());
    for (name, value) in headers {
        for text in [&name.to_ascii_lowercase(), value] {
            block.extend((text.len() as u32).to_be_bytes());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn parse(mut block: &[u8]) -> Option<Headers> {
    let count = block.try_get_u32().ok()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        let value = text(&mut block)?;
        headers.push((name, value));
    }
    Some(headers)
}

fn text(block: &mut &[u8]) -> Option<String> {
    let length = block.try_get_u32().ok()? as usize;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_one_context() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let headers = vec![
                ("Streamtype".to_owned(), "stdin".to_owned()),
                ("Long".to_owned(), "ab".repeat(4000)),
            ];
            let block = deflater.headers(&headers).unwrap();
            sizes.push(block.len());
            let read = inflater.headers(&block).unwrap();
            assert_eq!(read[0], ("streamtype".to_owned(), "stdin".to_owned()));
            assert_eq!(read[1].1, "ab".repeat(4000));
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }
}
