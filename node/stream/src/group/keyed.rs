//! The bytes of a key's windows, in state files and in sorted files.
//!
//! Owns: their order and encoding.
//! Must not know: where they lie, which key they are of.
//! Invariant: what was written is read as the same windows.

use pharos_window::{IntervalWindow, KeyedWindows, Timestamp, Watermark, Window, WindowSnapshot};

use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader, put_len};

/// Reads the windows of a key, whose values `read` takes.
///
/// # Errors
/// If the bytes are no such windows.
pub(super) fn read_windows(
    input: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<u32, CodecError>,
) -> Result<KeyedWindows<u32>, CodecError> {
    let output = Watermark::at(Timestamp::from_micros(input.i64()?));
    let count = input.u32()?;
    let windows: Vec<_> = (0..count).map(|_| read_window(input, &mut read)).collect::<Result<_, _>>()?;
    Ok(KeyedWindows::restore(output, windows))
}

/// The same where nothing comes after them.
///
/// # Errors
/// If the bytes are no such windows, or more.
pub(super) fn read_version(
    input: &mut Reader<'_>,
    read: impl FnMut(&mut Reader<'_>) -> Result<u32, CodecError>,
) -> Result<KeyedWindows<u32>, CodecError> {
    let windows = read_windows(input, read)?;
    if input.is_done() { Ok(windows) } else { Err(input.error("the end")) }
}

/// Appends the windows of a key.
pub(super) fn write_windows(out: &mut Vec<u8>, windows: &KeyedWindows<u32>, values: &Accumulators) {
    put_time(out, windows.output().timestamp());
    put_len(out, windows.windows().len());
    windows.windows().iter().for_each(|(window, state)| write_window(out, *window, state, values));
}

fn read_window(
    input: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<u32, CodecError>,
) -> Result<(Window, WindowSnapshot<u32>), CodecError> {
    let window = if input.bool()? {
        let (start, end) = (input.i64()?, input.i64()?);
        if start > end {
            return Err(input.error("a window that ends after its start"));
        }
        Window::Interval(IntervalWindow::new(Timestamp::from_micros(start), Timestamp::from_micros(end)))
    } else {
        Window::Global
    };
    let panes = input.u32()?;
    let dirty = input.bool()?;
    let hold = if input.bool()? { Some(Timestamp::from_micros(input.i64()?)) } else { None };
    let value = if input.bool()? { Some(read(input)?) } else { None };
    Ok((window, WindowSnapshot { value, dirty, hold, panes }))
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.micros().to_le_bytes());
}

fn write_window(out: &mut Vec<u8>, window: Window, state: &WindowSnapshot<u32>, values: &Accumulators) {
    match window {
        Window::Interval(window) => {
            out.push(1);
            put_time(out, window.start);
            put_time(out, window.end);
        }
        Window::Global => out.push(0),
    }
    out.extend_from_slice(&state.panes.to_le_bytes());
    out.push(u8::from(state.dirty));
    out.push(u8::from(state.hold.is_some()));
    state.hold.into_iter().for_each(|hold| put_time(out, hold));
    out.push(u8::from(state.value.is_some()));
    state.value.into_iter().for_each(|slot| values.write(slot, out));
}
