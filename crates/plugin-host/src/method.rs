use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skillweld_plugin_abi::{self as abi, flags};

use crate::ParamSpec;

/// What a method makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Experts → one tensor or one task vector.
    Merge,
    /// Expert task vectors and the merged one → one bit an element and expert.
    Mask,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Merge => "merge",
            Self::Mask => "mask",
        })
    }
}

/// One merge or mask method of a loaded plugin. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct Method {
    inner: Arc<Inner>,
}

struct Inner {
    info: MethodInfo,
    functions: Functions,
    cuda: Option<CudaCode>,
    path: PathBuf,
}

/// Device code that does what the method's `run` does, bit for bit (`skillweld_plugin_abi::Cuda`).
#[derive(Clone, PartialEq, Eq)]
pub struct CudaCode {
    /// A fatbin; the library that holds it is never unloaded.
    pub image: &'static [u8],
    /// Name of the kernel in it.
    pub run: String,
    /// Threads of a block.
    pub threads: u32,
}

impl fmt::Debug for CudaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, run, threads } = self;
        write!(f, "CudaCode({run}, {threads} threads, {} bytes)", image.len())
    }
}

/// The checked description, copied out of the plugin.
#[derive(Debug)]
pub(crate) struct MethodInfo {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) summary: String,
    pub(crate) citation: String,
    pub(crate) schema: String,
    pub(crate) params: Vec<ParamSpec>,
    pub(crate) mask: Option<String>,
    pub(crate) min_experts: usize,
    pub(crate) max_experts: Option<usize>,
    pub(crate) flags: u64,
    pub(crate) laws: u64,
}

/// The plugin's functions; the library that holds them is never unloaded.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub(crate) plan:
        Option<unsafe extern "C" fn(*const abi::Host, *const abi::Params, *mut abi::Plan) -> i32>,
    pub(crate) observe: Option<unsafe extern "C" fn(*const abi::Call, u32, *mut f64) -> i32>,
    pub(crate) run: Option<unsafe extern "C" fn(*const abi::Call) -> i32>,
    pub(crate) rescale: Option<unsafe extern "C" fn(*const abi::Call, *mut f32) -> i32>,
}

impl Method {
    pub(crate) fn new(info: MethodInfo, functions: Functions, cuda: Option<CudaCode>, path: &Path) -> Self {
        Self { inner: Arc::new(Inner { info, functions, cuda, path: path.to_owned() }) }
    }

    pub(crate) fn functions(&self) -> Functions {
        self.inner.functions
    }

    /// The name in recipes.
    pub fn id(&self) -> &str {
        &self.inner.info.id
    }

    /// Merge or mask.
    pub fn kind(&self) -> Kind {
        self.inner.info.kind
    }

    /// Version of the method, such as `1.0.0`.
    pub fn version(&self) -> &str {
        &self.inner.info.version
    }

    /// One line: what it does.
    pub fn summary(&self) -> &str {
        &self.inner.info.summary
    }

    /// Paper or source to cite; may be empty.
    pub fn citation(&self) -> &str {
        &self.inner.info.citation
    }

    /// JSON Schema of the parameters, as the author wrote it.
    pub fn schema(&self) -> &str {
        &self.inner.info.schema
    }

    /// The parameters, in the schema's order.
    pub fn params(&self) -> &[ParamSpec] {
        &self.inner.info.params
    }

    /// Merge methods that make sense only with masks: id of the mask method that belongs to it.
    pub fn mask(&self) -> Option<&str> {
        self.inner.info.mask.as_deref()
    }

    /// Fewest experts it joins.
    pub fn min_experts(&self) -> usize {
        self.inner.info.min_experts
    }

    /// Most experts it joins; `None` = no limit.
    pub fn max_experts(&self) -> Option<usize> {
        self.inner.info.max_experts
    }

    /// The library it lives in.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its device code, if it brings some along that this host understands.
    pub fn cuda(&self) -> Option<&CudaCode> {
        self.inner.cuda.as_ref()
    }

    /// True when all bits of `flag`, one of [`flags`], are declared.
    pub fn has(&self, flag: u64) -> bool {
        self.inner.info.flags & flag == flag
    }

    /// True when the method claims `law`, one of [`laws`](crate::laws).
    pub fn claims(&self, law: u64) -> bool {
        self.inner.info.laws & law == law
    }

    /// Its inputs are task vectors τ_k (mask methods: always) and so is what it gives; with [`flags::OPTIONAL_BASE`] where
    /// there is a base model.
    pub fn takes_task_vectors(&self) -> bool {
        self.kind() == Kind::Mask || self.has(flags::TASK_VECTORS)
    }

    /// It merges matrices alone, and leaves other tensors to the host.
    pub fn only_matrices(&self) -> bool {
        self.has(flags::MATRIX) && !self.has(flags::ANY_SHAPE)
    }

    /// It cannot run without a base model: to subtract, to read, or both.
    pub fn needs_base_model(&self) -> bool {
        self.takes_task_vectors() && !self.has(flags::OPTIONAL_BASE) || self.has(flags::NEEDS_BASE)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method").field("info", &self.inner.info).field("path", &self.inner.path).finish()
    }
}
