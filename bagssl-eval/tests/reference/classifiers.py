"""Writes classifiers.json: what scikit-learn makes of small tables of features.

    pip install scikit-learn==1.9.1 && python3 classifiers.py
"""

import json
import pathlib

import numpy
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def table(random, rows, dim, classes):
    """Overlapping clouds, with dimensions of very different scale and place."""
    labels = numpy.arange(rows) % classes
    centers = numpy.stack([numpy.cos(1.7 * numpy.arange(dim) + label) for label in range(classes)])
    values = centers[labels] + random.normal(size=(rows, dim))
    return (values * 3.0 ** (numpy.arange(dim) % 5 - 2) + numpy.arange(dim) % 3).astype(numpy.float32), labels


def case(random, train_rows, dim, classes, strength, neighbors, temperature):
    train, train_labels = table(random, train_rows, dim, classes)
    test, test_labels = table(random, 30, dim, classes)
    # For two classes scikit-learn fits one weight vector, the difference of ours: its penalty counts twice as much.
    inverse = 2 * strength if classes == 2 else strength
    logistic = LogisticRegression(C=inverse, tol=1e-12, max_iter=100_000)
    logistic = make_pipeline(StandardScaler(), logistic).fit(train.astype(float), train_labels)
    knn = KNeighborsClassifier(
        neighbors, metric="cosine", algorithm="brute", weights=lambda distance: numpy.exp((1 - distance) / temperature)
    ).fit(train.astype(float), train_labels)
    probabilities = logistic.predict_proba(test.astype(float))
    # Classes without a vote are never among the five.
    votes = knn.predict_proba(test.astype(float))
    ranks = [[c for c in numpy.argsort(-row, kind="stable")[:5] if row[c] > 0] for row in votes]
    enough = classes > 5
    rounded = lambda values: [round(float(value), 9) for value in values]
    return {
        "dim": dim,
        "train": rounded(train.ravel()),
        "train_labels": train_labels.tolist(),
        "test": rounded(test.ravel()),
        "test_labels": test_labels.tolist(),
        "strength": strength,
        "probabilities": rounded(logistic.predict_proba(test.astype(float)).ravel()),
        "logistic_accuracy": 100 * logistic.score(test.astype(float), test_labels),
        "logistic_top5": 100 * top_k_accuracy_score(test_labels, probabilities, k=5, labels=range(classes)) if enough else 100.0,
        "neighbours": neighbors,
        "temperature": temperature,
        "knn_predictions": knn.predict(test.astype(float)).tolist(),
        "knn_accuracy": 100 * knn.score(test.astype(float), test_labels),
        "knn_top5": 100 * float(numpy.mean([label in row for label, row in zip(test_labels, ranks)])),
        "knn_confusion": confusion_matrix(test_labels, knn.predict(test.astype(float)), labels=range(classes)).tolist(),
    }


random = numpy.random.default_rng(7)
cases = [case(random, 60, 5, 4, 0.7, 7, 0.07), case(random, 24, 40, 3, 1.0, 20, 0.5), case(random, 41, 8, 2, 30.0, 3, 0.1)]
cases.append(case(random, 90, 6, 9, 1.0, 20, 0.2))
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps({"scikit-learn": sklearn.__version__, "cases": cases}) + "\n")
