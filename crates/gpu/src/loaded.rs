//! What was loaded from images: modules and functions, each once a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;

use crate::device::driver;
use crate::images::image_of;
use crate::{GpuError, Result};

/// Where a kernel comes from: the images that the binary carries, or one that somebody brought along.
pub(crate) type Image = Option<&'static [u8]>;

/// Kept for the next launch.
#[derive(Debug, Default)]
pub(crate) struct Loaded(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    embedded: HashMap<&'static str, Arc<CudaModule>>,
    /// By where the image lies: it lies there for ever.
    brought: HashMap<usize, Arc<CudaModule>>,
    functions: HashMap<(Option<usize>, String), CudaFunction>,
}

impl Loaded {
    /// Loads the image of an embedded kernel, if that has not been done.
    pub(crate) fn check(&self, context: &Arc<CudaContext>, kernel: &str) -> Result<()> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.embedded(context, kernel).map(drop)
    }

    /// The kernel, ready for launches with as much shared memory as the GPU has.
    pub(crate) fn function(
        &self,
        context: &Arc<CudaContext>,
        image: Image,
        kernel: &str,
    ) -> Result<CudaFunction> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (image.map(|image| image.as_ptr().addr()), kernel.to_owned());
        if let Some(function) = tables.functions.get(&key) {
            return Ok(function.clone());
        }
        let function = match image {
            None => {
                let module = tables.embedded(context, kernel)?;
                module.load_function(kernel).map_err(|_| GpuError::NoKernel { kernel: kernel.to_owned() })?
            }
            Some(image) => {
                let module = tables.brought(context, image, kernel)?;
                module.load_function(kernel).map_err(|_| GpuError::DeviceCode {
                    kernel: kernel.to_owned(),
                    problem: "holds no kernel of that name".to_owned(),
                })?
            }
        };
        // At once for all launches to come, of which a later one may need more than this.
        let most = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most = context.attribute(most).map_err(driver("ask for shared memory"))?;
        function
            .set_attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
            .map_err(driver("ask for shared memory"))?;
        tables.functions.insert(key, function.clone());
        Ok(function)
    }
}

impl Tables {
    fn embedded(&mut self, context: &Arc<CudaContext>, kernel: &str) -> Result<Arc<CudaModule>> {
        let (name, image) = image_of(kernel)?;
        if let Some(module) = self.embedded.get(name) {
            return Ok(Arc::clone(module));
        }
        let module = context.load_module(Ptx::from_binary(image)).map_err(driver("load the kernels"))?;
        self.embedded.insert(name, Arc::clone(&module));
        Ok(module)
    }

    fn brought(
        &mut self,
        context: &Arc<CudaContext>,
        image: &'static [u8],
        kernel: &str,
    ) -> Result<Arc<CudaModule>> {
        let place = image.as_ptr().addr();
        if let Some(module) = self.brought.get(&place) {
            return Ok(Arc::clone(module));
        }
        let refused = |error| GpuError::DeviceCode {
            kernel: kernel.to_owned(),
            problem: match driver("")(error) {
                GpuError::Driver { message, .. } => format!("does not load on this GPU: {message}"),
                other => other.to_string(),
            },
        };
        let module = context.load_module(Ptx::from_binary(image.to_vec())).map_err(refused)?;
        self.brought.insert(place, Arc::clone(&module));
        Ok(module)
    }
}
