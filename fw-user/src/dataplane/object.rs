//! The BPF object that the binary carries.

use super::error::DataPlaneError;

/// The compiled kernel programs, aligned for the ELF parser.
///
/// # Errors
///
/// [`DataPlaneError::NoObject`] if none was there when this library was built.
#[cfg(not(dpufw_no_object))]
pub fn object() -> Result<&'static [u8], DataPlaneError> {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DPUFW_BPF_OBJECT_PATH"));
    Ok(OBJECT)
}

/// The compiled kernel programs, aligned for the ELF parser.
///
/// # Errors
///
/// [`DataPlaneError::NoObject`]: none was there when this library was built.
#[cfg(dpufw_no_object)]
pub fn object() -> Result<&'static [u8], DataPlaneError> {
    Err(DataPlaneError::NoObject)
}
