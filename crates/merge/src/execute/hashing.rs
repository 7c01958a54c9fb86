use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use skillweld_store::{ChainingValue, Hash, TensorHasher};
use skillweld_tensor::{Dtype, TensorView};

use super::units::Cut;

/// BLAKE3 of input tensors, taken in passing while their blocks are in the cache.
///
/// Tensors are told apart by where their bytes lie: two models on one checkpoint share its hash. Whoever reads a tensor
/// block by block offers each block; what nobody offered is hashed by [`HashBook::finish`] afterwards.
#[derive(Debug, Default)]
pub(crate) struct HashBook {
    pub(super) cut: Cut,
    tensors: HashMap<Place, BlockHashes>,
    /// Tensors that are known to hold the bits of another.
    copies: HashMap<Place, Place>,
}

/// Start and length of a tensor's bytes in memory.
type Place = (usize, usize);

fn place(view: &TensorView<'_>) -> Place {
    (view.bytes().as_ptr().addr(), view.bytes().len())
}

impl HashBook {
    /// Starts the account of a tensor.
    pub(crate) fn register(&mut self, view: &TensorView<'_>) {
        let new = || BlockHashes::new(view.dtype(), view.bytes().len(), self.cut.block);
        self.tensors.entry(place(view)).or_insert_with(new);
    }

    /// Gives `copy` the hash of `original`, whose dtype and bits it has.
    pub(crate) fn equate(&mut self, copy: &TensorView<'_>, original: &TensorView<'_>) {
        self.copies.insert(place(copy), place(original));
    }

    /// Hashes the blocks of `view` that overlap elements `start..end`, unless that was done before.
    pub(crate) fn offer(&self, view: &TensorView<'_>, start: usize, end: usize) {
        let Some(hashes) = self.tensors.get(&place(view)) else { return };
        for block in start / self.cut.block..end.div_ceil(self.cut.block) {
            hashes.fill_from(block, view.bytes());
        }
    }

    /// The hash of a registered tensor; hashes now whatever was not offered.
    pub(crate) fn finish(&self, view: &TensorView<'_>) -> Hash {
        let own = place(view);
        let place =
            self.copies.get(&own).filter(|original| self.tensors.contains_key(original)).unwrap_or(&own);
        let Some(hashes) = self.tensors.get(place) else { return blake3::hash(view.bytes()) };
        for block in 0..hashes.hasher.blocks() {
            hashes.fill_from(block, view.bytes());
        }
        hashes.finish()
    }
}

/// The hash of one tensor in the making, block by block.
#[derive(Debug)]
pub(crate) struct BlockHashes {
    hasher: TensorHasher,
    len_bytes: usize,
    block_bytes: usize,
    /// `None` until that block was hashed.
    values: Mutex<Vec<Option<ChainingValue>>>,
    /// Blocks of which parts are there, and how many bytes are not.
    parts: Mutex<HashMap<usize, (Vec<u8>, usize)>>,
}

impl BlockHashes {
    /// For a tensor of `len_bytes`, in blocks of `block` elements.
    pub(crate) fn new(dtype: Dtype, len_bytes: usize, block: usize) -> Self {
        // Packed dtypes take less than a byte an element; a byte is the least that a block can be counted in.
        let block_bytes = block * (dtype.bits() / 8).max(1);
        let hasher = TensorHasher::new(len_bytes as u64, block_bytes);
        let values = Mutex::new(vec![None; hasher.blocks()]);
        Self { hasher, len_bytes, block_bytes, values, parts: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<ChainingValue>>> {
        // A panic while the lock is held leaves a vector of options as valid as before.
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_from(&self, block: usize, tensor: &[u8]) {
        if matches!(self.lock().get(block), Some(None)) {
            let start = block * self.block_bytes;
            let end = (start + self.block_bytes).min(tensor.len());
            let value = self.hasher.hash_block(block, &tensor[start..end]);
            self.lock()[block] = Some(value);
        }
    }

    /// Hashes the blocks that `bytes`, which stand at `offset_bytes`, make whole. Each byte comes once.
    pub(crate) fn fill(&self, offset_bytes: usize, bytes: &[u8]) {
        let (mut start, mut rest) = (offset_bytes, bytes);
        while !rest.is_empty() {
            let (block, place) = (start / self.block_bytes, start % self.block_bytes);
            let (part, more) = rest.split_at(rest.len().min(self.block_bytes - place));
            let whole = self.block_bytes.min(self.len_bytes - block * self.block_bytes);
            if part.len() == whole {
                self.fill_block(block, part);
            } else if let Some(bytes) = self.collect(block, place, part, whole) {
                self.fill_block(block, &bytes);
            }
            (start, rest) = (start + part.len(), more);
        }
    }

    fn fill_block(&self, block: usize, bytes: &[u8]) {
        let value = self.hasher.hash_block(block, bytes);
        self.lock()[block] = Some(value);
    }

    /// Puts a part at its place in a block of `whole` bytes; gives the block when it was the last.
    fn collect(&self, block: usize, place: usize, part: &[u8], whole: usize) -> Option<Vec<u8>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, missing) = parts.entry(block).or_insert_with(|| (vec![0; whole], whole));
        bytes[place..place + part.len()].copy_from_slice(part);
        *missing -= part.len();
        if *missing == 0 { parts.remove(&block).map(|(bytes, _)| bytes) } else { None }
    }

    /// The hash, once every block is filled.
    pub(crate) fn finish(&self) -> Hash {
        let values: Vec<ChainingValue> = self.lock().iter().flatten().copied().collect();
        self.hasher.finish(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn offered_and_late_blocks_give_the_plain_hash() {
        let block = Cut::default().block;
        let bytes: Vec<u8> = (0..block * 2 * 3 + 10).map(|i| (i * 7 % 251) as u8).collect();
        let shape = [bytes.len() / 2];
        let view = TensorView::new(Dtype::BF16, &shape, &bytes).unwrap();
        let mut book = HashBook::default();
        book.register(&view);
        book.offer(&view, block, 3 * block);
        book.offer(&view, 2 * block, 3 * block);
        assert_eq!(book.finish(&view), blake3::hash(&bytes));
    }

    #[test]
    fn parts_of_blocks_in_any_order_give_the_plain_hash() {
        let bytes: Vec<u8> = (0..5 * 2048 + 7).map(|i| (i * 7 % 251) as u8).collect();
        let hashes = BlockHashes::new(Dtype::U8, bytes.len(), 2048);
        for range in [700..4000, 8000..bytes.len(), 4000..4100, 0..700, 4100..8000] {
            hashes.fill(range.start, &bytes[range.clone()]);
        }
        assert_eq!(hashes.finish(), blake3::hash(&bytes));
        assert!(hashes.parts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_copy_has_the_hash_of_its_original_and_is_not_hashed_itself() {
        let bytes = [vec![7; 100], vec![7; 100]];
        let [original, copy] = [0, 1].map(|i| TensorView::new(Dtype::U8, &[100], &bytes[i]).unwrap());
        let mut book = HashBook::default();
        book.register(&original);
        book.register(&copy);
        book.equate(&copy, &original);
        assert_eq!(book.finish(&copy), blake3::hash(&bytes[0]));
        let hashed = |view| book.tensors[&place(view)].lock().iter().flatten().count();
        assert_eq!([hashed(&original), hashed(&copy)], [1, 0]);
    }

    #[test]
    fn empty_tensors_have_the_hash_of_nothing() {
        let view = TensorView::new(Dtype::F32, &[0], &[]).unwrap();
        let mut book = HashBook::default();
        book.register(&view);
        assert_eq!(book.finish(&view), blake3::hash(&[]));
    }
}
