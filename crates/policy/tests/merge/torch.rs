//! Files as `torch.save` writes them, of dicts within dicts.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub enum Node {
    Dict(Vec<(String, Node)>),
    Int(usize),
    /// Class of storage, shape, bytes, size of an element.
    Tensor(&'static str, Vec<usize>, Vec<u8>, usize),
}

impl Node {
    pub fn bools(shape: &[usize], values: &[bool]) -> Self {
        Self::Tensor("BoolStorage", shape.to_vec(), values.iter().copied().map(u8::from).collect(), 1)
    }

    pub fn floats(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::Tensor("FloatStorage", shape.to_vec(), bytes, 4)
    }
}

/// Protocol 2.
pub fn write(path: &Path, root: &Node) {
    let (mut pickle, mut storages) = (b"\x80\x02".to_vec(), Vec::new());
    put(root, &mut pickle, &mut storages);
    pickle.push(b'.');
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    let stored =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    let mut member = |name: String, bytes: &[u8]| {
        archive.start_file(format!("archive/{name}"), stored).unwrap();
        archive.write_all(bytes).unwrap();
    };
    member("data.pkl".to_owned(), &pickle);
    member("byteorder".to_owned(), b"little");
    for (index, bytes) in storages.iter().enumerate() {
        member(format!("data/{index}"), bytes);
    }
    member("version".to_owned(), b"3\n");
    archive.finish().unwrap();
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn integer(value: usize, out: &mut Vec<u8>) {
    out.push(b'J');
    out.extend((value as u32).to_le_bytes());
}

fn tuple(values: &[usize], out: &mut Vec<u8>) {
    out.push(b'(');
    values.iter().for_each(|&value| integer(value, out));
    out.push(b't');
}

fn put(node: &Node, out: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>) {
    match node {
        Node::Int(value) => integer(*value, out),
        Node::Dict(entries) => {
            out.extend(b"}(");
            for (key, value) in entries {
                text(key, out);
                put(value, out, storages);
            }
            out.push(b'u');
        }
        Node::Tensor(storage, shape, bytes, size) => {
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text("storage", out);
            out.extend(format!("ctorch\n{storage}\n").as_bytes());
            text(&storages.len().to_string(), out);
            text("cpu", out);
            integer(bytes.len() / size, out);
            out.extend(b"tQ");
            integer(0, out);
            tuple(shape, out);
            let strides: Vec<usize> = (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
            tuple(&strides, out);
            out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            storages.push(bytes.clone());
        }
    }
}
