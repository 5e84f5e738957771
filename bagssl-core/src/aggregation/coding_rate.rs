//! The coding rate: how much of their space a set of unit vectors fills. This module computes its
//! bound; callers compute the rate itself.

/// Returns the lowest possible value of the negative total coding rate
/// `-1/2 logdet(I + d / (n eps) Z^T Z)`, for `n` rows of unit length in `d` dimensions. The rows
/// reach it if they spread evenly over `min(n, d)` directions.
///
/// The bound is `-n/2 ln(1 + d / (n eps))` for `n <= d` and `-d/2 ln(1 + 1 / eps)` for `n >= d`.
/// The trace of `Z^T Z` is `n`, and the logarithm is concave, so equal eigenvalues are optimal.
///
/// # Shapes
/// - `rows` and `dim`: at least 1
/// - `epsilon`: the distortion, positive (not squared); 0.2 in EMP-SSL
///
/// # Example
/// ```
/// // Two orthogonal rows in two dimensions: both eigenvalues of Z^T Z are 1, so the bound is -1/2
/// // ln((1 + 5)^2).
/// assert!((bagssl_core::coding_rate::bound(2, 2, 0.2) + 6_f64.ln()).abs() < 1e-12);
/// ```
///
/// # Source
/// EMP-SSL, arXiv:2304.03977.
pub fn bound(rows: usize, dim: usize, epsilon: f64) -> f64 {
    let directions = rows.min(dim) as f64;
    -0.5 * directions * libm::log1p(dim as f64 / (directions * epsilon))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EMP-SSL's batch of 100 in 1024 dimensions: -50 ln(1 + 1024 / 20) = -50 * 3.95508 = -197.754.
    /// With rows and dimensions exchanged, the number of dimensions counts: -50 ln(1 + 1 / 0.2) =
    /// -50 * 1.791759 = -89.588.
    #[test]
    fn bound_by_hand() {
        assert!((bound(100, 1024, 0.2) + 197.75).abs() < 0.005);
        assert!((bound(1024, 100, 0.2) + 89.588).abs() < 0.0005);
        assert!((bound(400, 10, 0.2) + 5.0 * libm::log(6.0)).abs() < 1e-12);
        assert_eq!(bound(10, 10, 0.2), bound(11, 10, 0.2));
    }
}
