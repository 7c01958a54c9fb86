//! The zip container: stored members only, found through the central directory (APPNOTE 6.3, including zip64).

use std::collections::HashMap;
use std::ops::Range;

use crate::ArchiveProblem;

/// Longest `data.pkl` that is looked at. A checkpoint of 100 000 tensors needs a tenth of it.
const MAX_PICKLE_BYTES: usize = 128 << 20;

/// The members of a PyTorch archive, as ranges of the file.
#[derive(Debug)]
pub(crate) struct Archive<'a> {
    pub(crate) file: &'a [u8],
    /// Name below the top folder → bytes.
    members: HashMap<&'a str, Range<usize>>,
}

/// One entry of the central directory.
struct Entry<'a> {
    name: &'a str,
    header: usize,
    len_bytes: usize,
}

impl<'a> Archive<'a> {
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, ArchiveProblem> {
        if !file.starts_with(b"PK") {
            // Before 1.6 `torch.save` wrote a series of pickles: magic number, protocol, system, then the value.
            let legacy = file.starts_with(b"\x80\x02\x8a\x0a");
            return Err(if legacy { ArchiveProblem::Legacy } else { ArchiveProblem::NotZip });
        }
        let entries = central_directory(file)?;
        let pickles: Vec<&str> = entries.iter().filter_map(|e| e.name.strip_suffix("data.pkl")).collect();
        // `torch.save` puts everything into one folder, named after the file.
        let &[folder] = &pickles[..] else { return Err(ArchiveProblem::NoPickle { found: pickles.len() }) };
        let mut members = HashMap::with_capacity(entries.len());
        for entry in &entries {
            if let Some(name) = entry.name.strip_prefix(folder) {
                let range = data_range(file, entry)
                    .ok_or_else(|| ArchiveProblem::OutOfRange { member: entry.name.to_owned() })?;
                if members.insert(name, range).is_some() {
                    return Err(ArchiveProblem::DuplicateMember { member: entry.name.to_owned() });
                }
            }
        }
        let archive = Self { file, members };
        let byte_order = archive.member("byteorder").map_or(&b"little"[..], |range| &file[range]);
        if byte_order != b"little" {
            return Err(ArchiveProblem::BigEndian);
        }
        let pickle_bytes = archive.pickle().len();
        if pickle_bytes > MAX_PICKLE_BYTES {
            return Err(ArchiveProblem::PickleTooLarge { pickle_bytes, limit_bytes: MAX_PICKLE_BYTES });
        }
        Ok(archive)
    }

    /// `data.pkl`.
    pub(crate) fn pickle(&self) -> &'a [u8] {
        self.member("data.pkl").map_or(&[], |range| &self.file[range])
    }

    /// Bytes of the file that a member takes.
    pub(crate) fn member(&self, name: &str) -> Option<Range<usize>> {
        self.members.get(name).cloned()
    }
}

fn central_directory(file: &[u8]) -> Result<Vec<Entry<'_>>, ArchiveProblem> {
    let damaged = ArchiveProblem::Truncated;
    let end = end_of_central_directory(file).ok_or(damaged.clone())?;
    let (start, count) = directory_place(file, end).ok_or(damaged.clone())?;
    let mut at = start;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (entry, next) = directory_entry(file, at).ok_or(damaged.clone())??;
        entries.push(entry);
        at = next;
    }
    Ok(entries)
}

/// The end record is the last thing in the file but for a comment of at most 65535 bytes.
fn end_of_central_directory(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(22)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last).rev().find(|&at| file[at..].starts_with(b"PK\x05\x06"))
}

/// Where the central directory starts and how many entries it has.
fn directory_place(file: &[u8], end: usize) -> Option<(usize, u64)> {
    let (count, start) = (u64::from(u16_at(file, end + 10)?), u64::from(u32_at(file, end + 16)?));
    if count < u64::from(u16::MAX) && start < u64::from(u32::MAX) {
        return Some((usize::try_from(start).ok()?, count));
    }
    let locator = end.checked_sub(20).filter(|&at| file[at..].starts_with(b"PK\x06\x07"));
    let Some(locator) = locator else { return Some((usize::try_from(start).ok()?, count)) };
    let end64 = usize::try_from(u64_at(file, locator + 8)?).ok()?;
    if !file.get(end64..)?.starts_with(b"PK\x06\x06") {
        return None;
    }
    let count = u64_at(file, end64.checked_add(32)?)?;
    Some((usize::try_from(u64_at(file, end64.checked_add(48)?)?).ok()?, count))
}

/// One entry and the place of the next; `None` when the directory is cut off.
#[allow(clippy::type_complexity, reason = "absent, refused, or an entry with what follows: three outcomes")]
fn directory_entry(file: &[u8], at: usize) -> Option<Result<(Entry<'_>, usize), ArchiveProblem>> {
    if !file.get(at..)?.starts_with(b"PK\x01\x02") {
        return None;
    }
    let (flags, method) = (u16_at(file, at + 8)?, u16_at(file, at + 10)?);
    let [name_len, extra_len, comment_len] =
        [28, 30, 32].map(|field| u16_at(file, at + field).map(usize::from));
    let (name_end, extra_end) = (at + 46 + name_len?, at + 46 + name_len? + extra_len?);
    let name = str::from_utf8(file.get(at + 46..name_end)?).ok()?;
    let mut extra64 = zip64_fields(file.get(name_end..extra_end)?);
    let mut field = |offset| match u32_at(file, at + offset)? {
        u32::MAX => extra64.next(),
        small => Some(u64::from(small)),
    };
    let (len_bytes, stored_bytes, header) = (field(24)?, field(20)?, field(42)?);
    let member = || name.to_owned();
    if flags & 1 != 0 {
        return Some(Err(ArchiveProblem::Encrypted { member: member() }));
    }
    if method != 0 || stored_bytes != len_bytes {
        return Some(Err(ArchiveProblem::Compressed { member: member() }));
    }
    let (header, len_bytes) = (usize::try_from(header).ok()?, usize::try_from(len_bytes).ok()?);
    Some(Ok((Entry { name, header, len_bytes }, extra_end + comment_len?)))
}

/// The 64-bit values of extra field 1, in the order in which the fields that they replace stand.
fn zip64_fields(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut values: &[u8] = &[];
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some((field, rest)) = extra[4..].split_at_checked(usize::from(len)) else { break };
        if id == 1 {
            values = field;
        }
        extra = rest;
    }
    values.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The member's bytes: they follow its local header, whose name and extra field may differ in length.
fn data_range(file: &[u8], entry: &Entry<'_>) -> Option<Range<usize>> {
    let header = entry.header;
    if !file.get(header..)?.starts_with(b"PK\x03\x04") {
        return None;
    }
    let (name_len, extra_len) = (u16_at(file, header + 26)?, u16_at(file, header + 28)?);
    let start = header + 30 + usize::from(name_len) + usize::from(extra_len);
    let end = start.checked_add(entry.len_bytes)?;
    (end <= file.len()).then_some(start..end)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}
