//! The expected results: plain loops in f64 over values `[image, channel, height, width]`.

use bagssl_core::plan::{NORM_EPSILON, Window};

/// The values of a map and its dimensions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    pub(super) dims: [usize; 4],
    pub(super) values: Vec<f64>,
}

impl Values {
    pub(super) fn new(dims: [usize; 4], values: &[f32]) -> Self {
        assert_eq!(dims.iter().product::<usize>(), values.len());
        Values { dims, values: values.iter().map(|&value| f64::from(value)).collect() }
    }

    fn zeros(dims: [usize; 4]) -> Self {
        Values { dims, values: vec![0.0; dims.iter().product()] }
    }

    fn at(&self, [n, c, h, w]: [usize; 4]) -> usize {
        let [_, channels, height, width] = self.dims;
        ((n * channels + c) * height + h) * width + w
    }
}

/// Returns the window positions inside the map: `(output pixel, kernel position, input pixel)`,
/// each `[row, column]`.
fn taps(window: Window, size: [usize; 2]) -> Vec<[[usize; 2]; 3]> {
    let [down, across] = window.output(size).expect("the window fits");
    let mut taps = Vec::new();
    for row in 0..down {
        for column in 0..across {
            for a in 0..window.kernel[0] {
                for b in 0..window.kernel[1] {
                    let y = (row * window.stride[0] + a).checked_sub(window.padding[0]);
                    let x = (column * window.stride[1] + b).checked_sub(window.padding[1]);
                    if let (Some(y), Some(x)) = (y, x)
                        && y < size[0]
                        && x < size[1]
                    {
                        taps.push([[row, column], [a, b], [y, x]]);
                    }
                }
            }
        }
    }
    taps
}

/// Computes a convolution and, from the gradient of its output, the gradients of input and weight.
pub(super) fn convolution(input: &Values, weight: &Values, gradient: &Values, window: Window) -> [Values; 3] {
    let [images, inputs, height, width] = input.dims;
    let outputs = weight.dims[0];
    let (mut output, mut to_input, mut to_weight) =
        (Values::zeros(gradient.dims), Values::zeros(input.dims), Values::zeros(weight.dims));
    for [[row, column], [a, b], [y, x]] in taps(window, [height, width]) {
        for image in 0..images {
            for o in 0..outputs {
                let at = output.at([image, o, row, column]);
                for i in 0..inputs {
                    let (from, tap) = (input.at([image, i, y, x]), weight.at([o, i, a, b]));
                    output.values[at] += input.values[from] * weight.values[tap];
                    to_input.values[from] += gradient.values[at] * weight.values[tap];
                    to_weight.values[tap] += gradient.values[at] * input.values[from];
                }
            }
        }
    }
    [output, to_input, to_weight]
}

/// The outputs of a batch norm, and its gradients.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) output: Vec<f64>,
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
    pub(super) to_input: Vec<f64>,
    pub(super) to_scale: Vec<f64>,
    pub(super) to_shift: Vec<f64>,
    pub(super) to_residual: Vec<f64>,
}

/// Computes a batch norm in training mode and its gradients.
pub(super) fn norm(
    input: &Values,
    [scale, shift]: [&[f32]; 2],
    residual: Option<&Values>,
    relu: bool,
    gradient: &Values,
) -> Norm {
    let [images, channels, height, width] = input.dims;
    let count = (images * height * width) as f64;
    let length = input.values.len();
    let empty = || vec![0.0; length];
    let (mut output, mut to_input, mut to_residual) = (empty(), empty(), empty());
    let [mut mean, mut variance, mut to_scale, mut to_shift] = [(); 4].map(|()| vec![0.0; channels]);
    for c in 0..channels {
        let places: Vec<usize> = (0..length).filter(|at| at / (height * width) % channels == c).collect();
        mean[c] = places.iter().map(|&at| input.values[at]).sum::<f64>() / count;
        variance[c] = places.iter().map(|&at| (input.values[at] - mean[c]).powi(2)).sum::<f64>() / count;
        let deviation = (variance[c] + NORM_EPSILON).sqrt();
        let factor = f64::from(scale[c]) / deviation;
        for &at in &places {
            let normed = (input.values[at] - mean[c]) / deviation;
            let plain = normed * f64::from(scale[c]) + f64::from(shift[c]);
            let sum = plain + residual.map_or(0.0, |residual| residual.values[at]);
            output[at] = if relu { sum.max(0.0) } else { sum };
            to_residual[at] = if relu && sum <= 0.0 { 0.0 } else { gradient.values[at] };
            to_shift[c] += to_residual[at];
            to_scale[c] += to_residual[at] * normed;
        }
        for &at in &places {
            let normed = (input.values[at] - mean[c]) / deviation;
            to_input[at] = factor * (to_residual[at] - to_shift[c] / count - normed * to_scale[c] / count);
        }
    }
    Norm { output, mean, variance, to_input, to_scale, to_shift, to_residual }
}

/// Computes the maximum over a window, and the gradient of the input (assigned to the first of
/// equal values).
pub(super) fn max_pool(input: &Values, gradient: &Values, window: Window) -> [Values; 2] {
    let [images, channels, height, width] = input.dims;
    let (mut output, mut to_input) = (Values::zeros(gradient.dims), Values::zeros(input.dims));
    let mut from = vec![usize::MAX; output.values.len()];
    for [[row, column], _, [y, x]] in taps(window, [height, width]) {
        for image in 0..images {
            for c in 0..channels {
                let (at, here) = (output.at([image, c, row, column]), input.at([image, c, y, x]));
                if from[at] == usize::MAX || input.values[here] > output.values[at] {
                    (output.values[at], from[at]) = (input.values[here], here);
                }
            }
        }
    }
    from.iter().zip(&gradient.values).for_each(|(&from, gradient)| to_input.values[from] += gradient);
    [output, to_input]
}

/// Computes `left @ right` of row-major matrices `[rows, inner]` and `[inner, columns]`.
pub(super) fn product(left: &[f64], right: &[f64], [rows, inner, columns]: [usize; 3]) -> Vec<f64> {
    let at = |row: usize, column: usize| {
        (0..inner).map(|k| left[row * inner + k] * right[k * columns + column]).sum::<f64>()
    };
    (0..rows * columns).map(|index| at(index / columns, index % columns)).collect()
}

/// Transposes a matrix `[rows, columns]`.
pub(super) fn turned(values: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    (0..rows * columns).map(|index| values[index % rows * columns + index / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dims: [usize; 4], values: &[f32]) -> Values {
        Values::new(dims, values)
    }

    #[test]
    fn a_convolution_by_hand() {
        // 1 x 3 pixels, a kernel of 1 x 2 with padding 1 across: outputs at -1, 0, 1, 2.
        let window = Window { kernel: [1, 2], stride: [1, 1], padding: [0, 1] };
        let (input, weight) = (values([1, 1, 1, 3], &[1.0, 2.0, 4.0]), values([1, 1, 1, 2], &[10.0, 1.0]));
        let gradient = values([1, 1, 1, 4], &[1.0, 1.0, 0.0, 2.0]);
        let [output, to_input, to_weight] = convolution(&input, &weight, &gradient, window);
        assert_eq!(output.values, [1.0, 12.0, 24.0, 40.0]);
        assert_eq!(to_input.values, [11.0, 1.0, 20.0]);
        assert_eq!(to_weight.values, [9.0, 3.0]);
    }

    #[test]
    fn a_norm_by_hand() {
        // Mean 2, variance 1: the normalized values are -1 and 1 (except for epsilon).
        let input = values([2, 1, 1, 1], &[1.0, 3.0]);
        let gradient = values([2, 1, 1, 1], &[5.0, 7.0]);
        let norm = norm(&input, [&[2.0], &[1.0]], None, true, &gradient);
        assert_eq!((norm.mean[0], norm.variance[0]), (2.0, 1.0));
        // The ReLU cuts off -2 + 1, and its gradient.
        assert!(norm.output[0] == 0.0 && (norm.output[1] - 3.0).abs() < 1e-4);
        assert_eq!(norm.to_residual, [0.0, 7.0]);
        assert!(norm.to_shift[0] == 7.0 && (norm.to_scale[0] - 7.0).abs() < 1e-4);
        // 2 * (0 - 3.5 + 3.5) and 2 * (7 - 3.5 - 3.5).
        assert!(norm.to_input.iter().all(|value| value.abs() < 1e-3));
    }

    #[test]
    fn a_pool_and_a_product_by_hand() {
        let window = Window { kernel: [2, 1], stride: [1, 1], padding: [0, 0] };
        let input = values([1, 1, 3, 1], &[1.0, 5.0, 5.0]);
        let [output, to_input] = max_pool(&input, &values([1, 1, 2, 1], &[3.0, 4.0]), window);
        assert_eq!((output.values, to_input.values), (vec![5.0, 5.0], vec![0.0, 7.0, 0.0]));
        let left = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(product(&left, &[1.0, 0.0, 2.0], [2, 3, 1]), [7.0, 16.0]);
        assert_eq!(turned(&left, [2, 3]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
