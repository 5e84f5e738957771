//! The operations and their inputs and outputs. This module needs no GPU.

use bagssl_core::plan::Window;
use burn::tensor::DType;

use super::form::{Checked, Form, Math, same};
use super::map::multiple;
use super::step::StepRule;

/// An operation and its settings. [`Operation::outputs`] checks the inputs and returns the outputs.
///
/// # Shapes
/// Feature maps are `[row, channel, height, width]`, whatever their memory layout. The weight of a
/// convolution is `[outputs, inputs, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    /// From a map and a weight, computes a map of the input's type.
    Conv { window: Window, math: Math },
    /// The same, and returns the weight in the layout that [`Operation::ConvInputGradient`] reads
    /// without a copy. The channel counts must need no padding.
    ConvPacking { window: Window, math: Math },
    /// The same as [`Operation::Conv`], and the map as [`Operation::ConvWeightGradient`] reads it without a copy: with channels of
    /// zeros up to a whole number of 16 bytes.
    ConvFilling { window: Window, math: Math },
    /// The output's gradient and the weight to the input's gradient, whose `[height, width]` is `size`.
    ConvInputGradient { window: Window, size: [usize; 2], math: Math },
    /// The input and the output's gradient to the weight's gradient, f32. The input has `inputs` channels, or as many as
    /// [`Operation::ConvFilling`] has made of them.
    ConvWeightGradient { window: Window, inputs: usize, math: Math },
    /// Map, bias and perhaps a residual to `relu?(map + bias + residual?)`.
    Finish { relu: bool },
    /// Adds two maps.
    Sum,
    /// From a map, scale, shift and an optional residual, computes the normalized map, its mean and
    /// its biased variance.
    Norm { relu: bool },
    /// From the output's gradient, input, output, scale, shift, mean and variance, computes the
    /// gradients of input, scale and shift, and of the residual if there was one.
    NormGradient { relu: bool, residual: bool },
    /// From a map, computes its mean and biased variance.
    NormStatistics,
    /// From a map, scale, shift, mean, variance and an optional residual, computes the normalized
    /// map.
    NormWith { relu: bool },
    /// From the inputs of [`Operation::NormGradient`], computes the gradients of scale and shift.
    NormSums { relu: bool, residual: bool },
    /// From the same inputs and these gradients, summed over `count` values, computes the gradient
    /// of the input, and of the residual if there was one.
    NormGradientWith { relu: bool, residual: bool, count: usize },
    /// From a map, computes the maximum over a window and its position within the window (`u8`).
    MaxPool { window: Window },
    /// From the output's gradient and the positions, computes the input's gradient.
    MaxPoolGradient { window: Window, size: [usize; 2] },
    /// From a map, computes the mean over pixels `[row, channel]` in f32.
    GlobalMean,
    /// From the gradient of the mean, computes the map's gradient in the given type.
    GlobalMeanGradient { size: [usize; 2], dtype: DType },
    /// From two matrices, each optionally transposed, and an optional bias per column, computes
    /// their product in f32.
    Product { transposed: [bool; 2], math: Math },
    /// From two batches of matrices, each optionally transposed, computes the products of their
    /// pairs in f32.
    Products { transposed: [bool; 2] },
    /// From symmetric positive definite matrices, computes their inverses and log-determinants.
    Inverses,
    /// Sums the columns of a matrix.
    SumColumns,
    /// From each parameter's value, gradient and current states, computes its new value and new
    /// states.
    Step(StepRule),
    /// Computes the squared length of each vector.
    Squares,
    /// Concatenates vectors.
    Join,
    /// From pairs of a running statistic and a batch statistic, the latter with a factor per pair,
    /// computes the new running statistics.
    Running { factors: Vec<f32> },
    /// From projections `[image, patch, dim]`, computes the mean cosine similarity of different
    /// images, `[1]`.
    Similarity,
}

impl Operation {
    /// Returns the outputs of the operation for these inputs.
    ///
    /// # Errors
    /// A one-line message if the inputs do not fit.
    pub(crate) fn outputs(&self, inputs: &[Form]) -> Checked<Vec<Form>> {
        let refuse = |why: String| format!("{}: {why}", self.name());
        let outputs = self.fitting(inputs).map_err(refuse)?;
        for form in inputs.iter().chain(&outputs) {
            check_size(form).map_err(refuse)?;
        }
        Ok(outputs)
    }

    /// Returns a name for messages and profiles. It equals the name of the surrounding host span,
    /// if there is one.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Operation::Conv { .. } | Operation::ConvPacking { .. } | Operation::ConvFilling { .. } => "convolution",
            Operation::ConvInputGradient { .. } => "convolution, gradient of its input",
            Operation::ConvWeightGradient { .. } => "convolution, gradient of its weight",
            Operation::Finish { .. } => "bias, residual and relu",
            Operation::Sum => "sum of gradients",
            Operation::Norm { .. } => "batch norm",
            Operation::NormGradient { .. } => "batch norm, its gradients",
            Operation::NormStatistics => "batch norm, its statistics",
            Operation::NormWith { .. } => "batch norm, with given statistics",
            Operation::NormSums { .. } => "batch norm, its gradients' sums",
            Operation::NormGradientWith { .. } => "batch norm, its gradients with given sums",
            Operation::MaxPool { .. } => "max pool",
            Operation::MaxPoolGradient { .. } => "max pool, its gradient",
            Operation::GlobalMean => "global mean",
            Operation::GlobalMeanGradient { .. } => "global mean, its gradient",
            Operation::Product { .. } => "matrix product",
            Operation::Products { .. } => "products of matrices",
            Operation::Inverses => "inverses of matrices",
            Operation::SumColumns => "sum of columns",
            Operation::Step(_) => "optimizer",
            Operation::Squares => "squared lengths",
            Operation::Join => "joined vectors",
            Operation::Running { .. } => "running statistics",
            Operation::Similarity => "similarity",
        }
    }

    fn fitting(&self, inputs: &[Form]) -> Checked<Vec<Form>> {
        match (self, inputs) {
            (Operation::Conv { window, .. }, [input, weight]) => {
                let ([rows, channels, height, width], [outputs, inputs, ..]) = (input.map()?, weight.map()?);
                check_kernel(weight, *window)?;
                same("channels", inputs, channels)?;
                let [height, width] = output_size(*window, [height, width])?;
                Ok(vec![Form::new([rows, outputs, height, width], input.dtype)])
            }
            (Operation::ConvPacking { window, math }, [input, weight]) => {
                let mut outputs = Operation::Conv { window: *window, math: *math }.fitting(inputs)?;
                outputs.push(Form::new(weight.shape.clone(), input.dtype));
                Ok(outputs)
            }
            (Operation::ConvFilling { window, math }, [input, _]) => {
                let mut outputs = Operation::Conv { window: *window, math: *math }.fitting(inputs)?;
                let [rows, channels, height, width] = input.map()?;
                outputs.push(Form::new([rows, filled(channels, input.dtype), height, width], input.dtype));
                Ok(outputs)
            }
            (Operation::ConvInputGradient { window, size, .. }, [gradient, weight]) => {
                let ([rows, channels, height, width], [outputs, inputs, ..]) = (gradient.map()?, weight.map()?);
                check_kernel(weight, *window)?;
                same("channels", outputs, channels)?;
                same("size", output_size(*window, *size)?, [height, width])?;
                Ok(vec![Form::new([rows, inputs, size[0], size[1]], gradient.dtype)])
            }
            (Operation::ConvWeightGradient { window, inputs, .. }, [input, gradient]) => {
                let ([rows, channels, height, width], [also, outputs, down, across]) = (input.map()?, gradient.map()?);
                same("rows", rows, also)?;
                if channels != filled(*inputs, input.dtype) {
                    same("channels", *inputs, channels)?;
                }
                same("size", output_size(*window, [height, width])?, [down, across])?;
                let [height, width] = window.kernel;
                Ok(vec![Form::new([outputs, *inputs, height, width], DType::F32)])
            }
            (Operation::Finish { .. }, [input, bias, rest @ ..]) => {
                let [_, channels, ..] = input.map()?;
                check_channels(channels, &[bias])?;
                check_residual(input, rest)?;
                Ok(vec![input.clone()])
            }
            (Operation::Sum, [left, right]) => {
                left.map()?;
                same("maps", left, right)?;
                Ok(vec![left.clone()])
            }
            (Operation::Norm { .. }, [input, scale, shift, rest @ ..]) => {
                let [_, channels, ..] = input.map()?;
                check_channels(channels, &[scale, shift])?;
                check_residual(input, rest)?;
                let statistic = Form::new([channels], DType::F32);
                Ok(vec![input.clone(), statistic.clone(), statistic])
            }
            (Operation::NormStatistics, [input]) => {
                let [_, channels, ..] = input.map()?;
                Ok(vec![Form::new([channels], DType::F32); 2])
            }
            (Operation::NormWith { .. }, [input, scale, shift, mean, variance, rest @ ..]) => {
                let [_, channels, ..] = input.map()?;
                check_channels(channels, &[scale, shift, mean, variance])?;
                check_residual(input, rest)?;
                Ok(vec![input.clone()])
            }
            (Operation::NormGradient { residual, .. }, inputs) => {
                let (input, statistic) = backward(inputs, 4)?;
                let mut outputs = vec![input.clone(), statistic.clone(), statistic];
                outputs.extend(residual.then_some(input));
                Ok(outputs)
            }
            (Operation::NormSums { .. }, inputs) => {
                let (_, statistic) = backward(inputs, 4)?;
                Ok(vec![statistic; 2])
            }
            (Operation::NormGradientWith { residual, count, .. }, inputs) => {
                let (input, _) = backward(inputs, 6)?;
                same("sums are over some values", true, *count > 0)?;
                Ok(vec![input; 1 + usize::from(*residual)])
            }
            (Operation::MaxPool { window }, [input]) => {
                let [rows, channels, height, width] = input.map()?;
                let [down, across] = pooled(*window, [height, width])?;
                let shape = [rows, channels, down, across];
                Ok(vec![Form::new(shape, input.dtype), Form::new(shape, DType::U8)])
            }
            (Operation::MaxPoolGradient { window, size }, [gradient, taps]) => {
                let [rows, channels, height, width] = gradient.map()?;
                same("size", pooled(*window, *size)?, [height, width])?;
                same("taps", taps, &Form::new(gradient.shape.clone(), DType::U8))?;
                Ok(vec![Form::new([rows, channels, size[0], size[1]], gradient.dtype)])
            }
            (Operation::GlobalMean, [input]) => {
                let [rows, channels, ..] = input.map()?;
                Ok(vec![Form::new([rows, channels], DType::F32)])
            }
            (Operation::GlobalMeanGradient { size, dtype }, [gradient]) => {
                let [rows, channels] = gradient.dims()?;
                same("type", DType::F32, gradient.dtype)?;
                Ok(vec![Form::new([rows, channels, size[0], size[1]], *dtype)])
            }
            (Operation::Product { transposed, .. }, [left, right, rest @ ..]) => {
                let turned = |form: &Form, turn: bool| {
                    form.dims().map(|[rows, columns]: [usize; 2]| if turn { [columns, rows] } else { [rows, columns] })
                };
                let [rows, inner] = turned(left, transposed[0])?;
                let [also, columns] = turned(right, transposed[1])?;
                same("inner dimension", inner, also)?;
                same("type", left.dtype, right.dtype)?;
                same("type is f32 or bf16", true, matches!(left.dtype, DType::F32 | DType::BF16))?;
                match rest {
                    [] => {}
                    [bias] => check_channels(columns, &[bias])?,
                    _ => return Err(format!("expected 2 or 3 inputs, got {}", inputs.len())),
                }
                Ok(vec![Form::new([rows, columns], DType::F32)])
            }
            (Operation::Products { transposed }, [left, right]) => {
                let ([sets, a, b], [also, c, d]): ([usize; 3], [usize; 3]) = (left.dims()?, right.dims()?);
                let [rows, inner] = if transposed[0] { [b, a] } else { [a, b] };
                let [same_inner, columns] = if transposed[1] { [d, c] } else { [c, d] };
                same("matrices", sets, also)?;
                same("inner dimension", inner, same_inner)?;
                same("types", [DType::F32; 2], [left.dtype, right.dtype])?;
                Ok(vec![Form::new([sets, rows, columns], DType::F32)])
            }
            (Operation::Inverses, [matrices]) => {
                let [sets, rows, columns] = matrices.dims()?;
                same("columns", rows, columns)?;
                same("type", DType::F32, matrices.dtype)?;
                Ok(vec![matrices.clone(), Form::new([sets], DType::F32)])
            }
            (Operation::SumColumns, [input]) => {
                let [_, columns] = input.dims()?;
                same("type", DType::F32, input.dtype)?;
                Ok(vec![Form::new([columns], DType::F32)])
            }
            (Operation::Step(rule), inputs) => rule.outputs(inputs),
            (Operation::Squares, [_, ..]) => {
                check_vectors(inputs)?;
                Ok(vec![Form::new([inputs.len()], DType::F32)])
            }
            (Operation::Join, [_, ..]) => Ok(vec![Form::new([check_vectors(inputs)?], DType::F32)]),
            (Operation::Running { factors }, [_, ..]) if inputs.len() == 2 * factors.len() => {
                let moved = |pair: &[Form]| {
                    let [channels] = pair[0].dims()?;
                    check_channels(channels, &[&pair[0], &pair[1]])?;
                    Ok(pair[0].clone())
                };
                inputs.chunks(2).map(moved).collect()
            }
            (Operation::Similarity, [projections]) => {
                let [_, _, _]: [usize; 3] = projections.dims()?;
                same("type", DType::F32, projections.dtype)?;
                Ok(vec![Form::new([1], DType::F32)])
            }
            _ => Err(format!("expected a different number of inputs, got {}", inputs.len())),
        }
    }
}

/// Channels with those that are filled up.
fn filled(channels: usize, dtype: DType) -> usize {
    channels.next_multiple_of(multiple(dtype))
}

fn check_kernel(weight: &Form, window: Window) -> Checked<()> {
    let [_, _, height, width] = weight.dims()?;
    same("kernel", window.kernel, [height, width])
}

fn output_size(window: Window, size: [usize; 2]) -> Checked<[usize; 2]> {
    window.output(size).ok_or_else(|| format!("a kernel of size {:?} does not fit {size:?} pixels", window.kernel))
}

/// As [`output_size`], but requires that every window covers a pixel and that positions within it
/// fit in a byte.
fn pooled(window: Window, size: [usize; 2]) -> Checked<[usize; 2]> {
    let [height, width] = window.kernel;
    if height * width > 255 || (0..2).any(|axis| window.padding[axis] >= window.kernel[axis]) {
        return Err(format!("expected at most 255 taps and less padding than kernel, got {window:?}"));
    }
    output_size(window, size)
}

/// Checks the vectors and returns their total length.
fn check_vectors(inputs: &[Form]) -> Checked<usize> {
    let length = |input: &Form| {
        let [length] = input.dims()?;
        same("vector", &Form::new([length], DType::F32), input).map(|()| length)
    };
    inputs.iter().map(length).sum()
}

fn check_channels(channels: usize, values: &[&Form]) -> Checked<()> {
    values.iter().try_for_each(|form| same("values of each channel", &Form::new([channels], DType::F32), *form))
}

/// Checks the inputs of a norm's backward pass: gradient, input, output and `values` vectors with a
/// value per channel. Returns the forms of the map and of a statistic.
fn backward(inputs: &[Form], values: usize) -> Checked<(Form, Form)> {
    let [gradient, input, output, rest @ ..] = inputs else {
        return Err(format!("expected {} inputs, got {}", 3 + values, inputs.len()));
    };
    let [_, channels, ..] = input.map()?;
    same("inputs", 3 + values, inputs.len())?;
    check_channels(channels, &rest.iter().collect::<Vec<_>>())?;
    same("gradient shape", &input.shape, &gradient.shape)?;
    same("output shape", &input.shape, &output.shape)?;
    gradient.map()?;
    Ok((input.clone(), Form::new([channels], DType::F32)))
}

fn check_residual(input: &Form, rest: &[Form]) -> Checked<()> {
    match rest {
        [] => Ok(()),
        [residual] => {
            residual.map()?;
            same("residual shape", &input.shape, &residual.shape)
        }
        _ => Err("expected at most one residual".into()),
    }
}

/// Checks that kernels can count dimensions in 32 bits and elements in 64 bits. Empty tensors are
/// rejected.
fn check_size(form: &Form) -> Checked<()> {
    let most = i32::MAX as usize;
    if let Some(dim) = form.shape.iter().find(|&&dim| dim == 0 || dim > most) {
        return Err(format!("expected dimensions from 1 to {most}, got {dim} in {:?}", form.shape));
    }
    // Padding adds less than 8 channels or rows, and a value has at most 4 bytes.
    let padded = form.shape.iter().try_fold(4_i64, |count, &dim| count.checked_mul(dim as i64 + 7));
    padded.map(|_| ()).ok_or_else(|| format!("expected fewer elements, got {:?}", form.shape))
}

#[cfg(test)]
mod tests {
    use super::super::step::{StepRule, UpdateRule};
    use super::*;

    const CONV: Window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };

    fn form<const D: usize>(shape: [usize; D], dtype: DType) -> Form {
        Form::new(shape, dtype)
    }

    fn shapes(operation: &Operation, inputs: &[Form]) -> Vec<Vec<usize>> {
        operation.outputs(inputs).unwrap().into_iter().map(|form| form.shape).collect()
    }

    #[test]
    fn the_passes_of_a_convolution_fit_together() {
        let (input, weight) = (form([4, 3, 9, 7], DType::BF16), form([5, 3, 3, 2], DType::F32));
        let forward = Operation::Conv { window: CONV, math: Math::Exact };
        let outputs = forward.outputs(&[input.clone(), weight.clone()]).unwrap();
        // Rows: (9 + 2 - 3) / 2 + 1; columns: 7 - 2 + 1. The type is that of the input.
        assert_eq!(outputs, [form([4, 5, 5, 6], DType::BF16)]);
        let back = Operation::ConvInputGradient { window: CONV, size: [9, 7], math: Math::Tf32 };
        assert_eq!(back.outputs(&[outputs[0].clone(), weight.clone()]).unwrap(), std::slice::from_ref(&input));
        let packing = Operation::ConvPacking { window: CONV, math: Math::Exact };
        let both = packing.outputs(&[input.clone(), weight.clone()]).unwrap();
        assert_eq!(both, [outputs[0].clone(), form([5, 3, 3, 2], DType::BF16)]);
        assert_eq!(
            packing.outputs(std::slice::from_ref(&input)).unwrap_err(),
            "convolution: expected a different number of inputs, got 1"
        );
        let filling = Operation::ConvFilling { window: CONV, math: Math::Exact };
        let filled = filling.outputs(&[input.clone(), weight.clone()]).unwrap();
        assert_eq!(filled, [outputs[0].clone(), form([4, 8, 9, 7], DType::BF16)]);
        let to_weight = |inputs| Operation::ConvWeightGradient { window: CONV, inputs, math: Math::Exact };
        for read in [&input, &filled[1]] {
            assert_eq!(
                to_weight(3).outputs(&[read.clone(), outputs[0].clone()]).unwrap(),
                std::slice::from_ref(&weight)
            );
        }
        let fewer = to_weight(2).outputs(&[input.clone(), outputs[0].clone()]).unwrap_err();
        assert_eq!(fewer, "convolution, gradient of its weight: channels: expected 2, got 3");

        let turned = forward.outputs(&[form([4, 3, 2, 1], DType::BF16), weight.clone()]).unwrap_err();
        assert_eq!(turned, "convolution: a kernel of size [3, 2] does not fit [2, 1] pixels");
        let other = forward.outputs(&[form([4, 2, 9, 7], DType::F32), weight.clone()]).unwrap_err();
        assert_eq!(other, "convolution: channels: expected 3, got 2");
        let kernel = forward.outputs(&[input.clone(), form([5, 3, 2, 3], DType::F32)]).unwrap_err();
        assert_eq!(kernel, "convolution: kernel: expected [3, 2], got [2, 3]");
        let size = Operation::ConvInputGradient { window: CONV, size: [12, 7], math: Math::Exact };
        assert!(size.outputs(&[outputs[0].clone(), weight]).unwrap_err().contains("size: expected [6, 6], got [5, 6]"));
        assert!(forward.outputs(&[input]).unwrap_err().ends_with("got 1"));
    }

    #[test]
    fn a_norm_reads_f32_statistics_and_a_residual_of_its_shape() {
        let map = form([4, 3, 2, 5], DType::BF16);
        let channel = form([3], DType::F32);
        let norm = Operation::Norm { relu: true };
        let mut inputs = vec![map.clone(), channel.clone(), channel.clone()];
        assert_eq!(norm.outputs(&inputs).unwrap(), [map.clone(), channel.clone(), channel.clone()]);
        inputs.push(form([4, 3, 5, 2], DType::BF16));
        assert!(norm.outputs(&inputs).unwrap_err().starts_with("batch norm: residual shape"));
        inputs[3] = map.clone();
        assert_eq!(norm.outputs(&inputs).unwrap().len(), 3);
        inputs[1] = form([3], DType::BF16);
        assert!(norm.outputs(&inputs).is_err());
        let back = |residual| Operation::NormGradient { relu: true, residual };
        let inputs = [vec![map.clone(); 3], vec![channel.clone(); 4]].concat();
        assert_eq!(shapes(&back(false), &inputs), [vec![4, 3, 2, 5], vec![3], vec![3]]);
        assert_eq!(back(true).outputs(&inputs).unwrap()[3], map);
        assert!(back(true).outputs(&inputs[..6]).is_err());
    }

    #[test]
    fn maps_of_one_form_are_summed() {
        let map = form([4, 3, 2, 5], DType::BF16);
        assert_eq!(Operation::Sum.outputs(&[map.clone(), map.clone()]).unwrap(), std::slice::from_ref(&map));
        let turned = Operation::Sum.outputs(&[map.clone(), form([4, 3, 5, 2], DType::BF16)]).unwrap_err();
        assert!(turned.starts_with("sum of gradients: maps: expected"), "{turned}");
        assert!(Operation::Sum.outputs(&[map.clone(), form([4, 3, 2, 5], DType::F32)]).is_err());
        assert!(Operation::Sum.outputs(&[map]).is_err());
    }

    #[test]
    fn pools_means_and_products() {
        let map = form([4, 3, 9, 7], DType::F32);
        let pool = Operation::MaxPool { window: CONV };
        let outputs = pool.outputs(std::slice::from_ref(&map)).unwrap();
        assert_eq!(outputs, [form([4, 3, 5, 6], DType::F32), form([4, 3, 5, 6], DType::U8)]);
        let back = Operation::MaxPoolGradient { window: CONV, size: [9, 7] };
        assert_eq!(back.outputs(&outputs).unwrap(), std::slice::from_ref(&map));
        let padded = Operation::MaxPool { window: Window { padding: [3, 0], ..CONV } };
        assert!(padded.outputs(std::slice::from_ref(&map)).unwrap_err().contains("less padding than kernel"));

        assert_eq!(shapes(&Operation::GlobalMean, &[map]), [[4, 3]]);
        let back = Operation::GlobalMeanGradient { size: [9, 7], dtype: DType::BF16 };
        assert_eq!(back.outputs(&[form([4, 3], DType::F32)]).unwrap(), [form([4, 3, 9, 7], DType::BF16)]);

        let product = |transposed| Operation::Product { transposed, math: Math::Exact };
        let (left, right) = (form([4, 3], DType::F32), form([5, 3], DType::F32));
        assert_eq!(shapes(&product([false, true]), &[left.clone(), right.clone()]), [[4, 5]]);
        let bias = form([5], DType::F32);
        assert_eq!(shapes(&product([false, true]), &[left.clone(), right.clone(), bias.clone()]), [[4, 5]]);
        assert!(product([false, true]).outputs(&[right.clone(), left.clone(), bias]).is_err());
        assert!(product([false, false]).outputs(&[left.clone(), right]).unwrap_err().contains("inner dimension"));
        assert!(product([false, true]).outputs(&[left, form([5, 3], DType::BF16)]).unwrap_err().contains("type"));
    }

    #[test]
    fn stacks_of_matrices() {
        let products = |transposed| Operation::Products { transposed };
        let (left, right) = (form([7, 4, 3], DType::F32), form([7, 5, 3], DType::F32));
        assert_eq!(shapes(&products([false, true]), &[left.clone(), right.clone()]), [[7, 4, 5]]);
        let turned = form([7, 4, 6], DType::F32);
        assert_eq!(shapes(&products([true, false]), &[left.clone(), turned]), [[7, 3, 6]]);
        assert!(products([false, false]).outputs(&[left.clone(), right]).unwrap_err().contains("inner dimension"));
        let fewer = form([6, 5, 3], DType::F32);
        assert!(products([false, true]).outputs(&[left.clone(), fewer]).unwrap_err().contains("matrices"));
        assert!(Operation::Inverses.outputs(&[left]).unwrap_err().ends_with("columns: expected 4, got 3"));
        let outputs = Operation::Inverses.outputs(&[form([7, 4, 4], DType::F32)]).unwrap();
        assert_eq!(outputs, [form([7, 4, 4], DType::F32), form([7], DType::F32)]);
    }

    #[test]
    fn vectors_and_projections() {
        let vectors = [form([3], DType::F32), form([1 << 20], DType::F32)];
        assert_eq!(shapes(&Operation::Squares, &vectors), [[2]]);
        assert!(Operation::Squares.outputs(&[]).is_err());
        assert!(
            Operation::Squares.outputs(&[form([3], DType::BF16)]).unwrap_err().starts_with("squared lengths: vector")
        );
        assert_eq!(shapes(&Operation::Join, &vectors), [[3 + (1 << 20)]]);
        assert!(Operation::Join.outputs(&[form([3, 1], DType::F32)]).unwrap_err().starts_with("joined vectors: "));
        let running = Operation::Running { factors: vec![1.0, 1.5] };
        let inputs = [3, 3, 5, 5].map(|channels| form([channels], DType::F32));
        assert_eq!(shapes(&running, &inputs), [[3], [5]]);
        assert!(running.outputs(&inputs[..2]).unwrap_err().ends_with("got 2"));
        let unlike = [3, 3, 5, 4].map(|channels| form([channels], DType::F32));
        assert!(running.outputs(&unlike).unwrap_err().contains("expected"));
        assert_eq!(shapes(&Operation::Similarity, &[form([4, 3, 2], DType::F32)]), [[1]]);
        assert!(Operation::Similarity.outputs(&[form([4, 3], DType::F32)]).is_err());
    }

    #[test]
    fn sizes_that_kernels_cannot_count_are_refused() {
        let huge = Form::new([1 << 31, 1], DType::F32);
        assert!(Operation::SumColumns.outputs(&[huge]).unwrap_err().contains("expected dimensions from 1"));
        let empty = Form::new([0, 3], DType::F32);
        assert!(Operation::SumColumns.outputs(&[empty]).is_err());
        let long = Form::new([1 << 30, 1 << 20, 1 << 12, 1], DType::F32);
        assert!(Operation::GlobalMean.outputs(&[long]).unwrap_err().contains("fewer elements"));
        let rule = StepRule { rule: UpdateRule::sgd(0.1, 0.9, false), items: Vec::new() };
        assert!(Operation::Step(rule).outputs(&[]).is_ok_and(|outputs| outputs.is_empty()));
    }
}
